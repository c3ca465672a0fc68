#include "attention_graph.hpp"

namespace longspan {
namespace {

// Views of the graph's memory, valid while it lives and does not grow.
template <class T, class Array>
nb::object view(const Array& array, std::initializer_list<std::size_t> shape, nb::handle owner) {
    auto* data = const_cast<T*>(reinterpret_cast<const T*>(array.data()));
    return nb::cast(nb::ndarray<nb::pytorch, T, nb::device::cpu>(data, shape, owner));
}

}  // namespace

// A graph from what `arrays` gave; everything that a search relies on is checked.
AttentionGraph restore_graph(const FloatsIn& mean, const FloatsIn& to_codes, const FloatsIn& to_queries, const FloatsIn& step,
                       const BytesIn& codes, const FloatsIn& half_norms, const IntsIn& edges, const IntsIn& entries,
                       const IntsIn& token_of, std::string_view storage) {
    AttentionGraph graph = empty_graph(mean, to_codes, to_queries, storage);
    const std::size_t tokens = half_norms.size(), width = to_codes.shape(1);
    require(tokens > 0 && edges.ndim() == 2 && edges.shape(0) == tokens && edges.shape(1) >= 1 && step.size() == width &&
                entries.size() > 0 && token_of.size() == tokens && codes.size() == tokens * width * static_cast<std::size_t>(bytes_of(graph.storage)),
            "arrays of the graph do not fit one another");
    for (std::size_t e = 0; e < edges.size(); ++e)
        require(edges.data()[e] >= -1 && edges.data()[e] < static_cast<std::int64_t>(tokens), "an edge leads nowhere");
    for (std::size_t e = 0; e < entries.size(); ++e)
        require(entries.data()[e] >= 0 && entries.data()[e] < static_cast<std::int64_t>(tokens), "an entry is not there");
    graph.token_of.assign(token_of.data(), token_of.data() + tokens);
    graph.node_of.assign(tokens, no_node);
    for (std::size_t node = 0; node < tokens; ++node) {
        const std::uint32_t token = graph.token_of[node];
        require(token < tokens && graph.node_of[token] == no_node, "token_of is no permutation");
        graph.node_of[token] = static_cast<std::uint32_t>(node);
    }
    graph.degree = static_cast<int>(edges.shape(1));
    graph.step.assign(step.data(), step.data() + step.size());
    graph.codes.assign(codes.data(), codes.data() + codes.size());
    graph.half_norms.assign(half_norms.data(), half_norms.data() + tokens);
    graph.edges.assign(edges.data(), edges.data() + edges.size());
    graph.entries.assign(entries.data(), entries.data() + entries.size());
    return graph;
}

nb::dict graph_arrays(nb::handle self) {
    const auto& graph = nb::cast<const AttentionGraph&>(self);
    const auto tokens = static_cast<std::size_t>(graph.tokens());
    const auto size = static_cast<std::size_t>(graph.head_size), width = static_cast<std::size_t>(graph.width);
    nb::dict all;
    all["mean"] = view<float>(graph.mean, {size}, self);
    all["to_codes"] = view<float>(graph.to_codes, {size, width}, self);
    all["to_queries"] = view<float>(graph.to_queries, {size, width}, self);
    all["step"] = view<float>(graph.step, {width}, self);
    all["codes"] = view<std::uint8_t>(graph.codes, {tokens, graph.codes.size() / tokens}, self);
    all["half_norms"] = view<float>(graph.half_norms, {tokens}, self);
    all["edges"] = view<std::int32_t>(graph.edges, {tokens, static_cast<std::size_t>(graph.degree)}, self);
    all["token_of"] = view<std::int32_t>(graph.token_of, {tokens}, self);
    all["entries"] = view<std::int32_t>(graph.entries, {graph.entries.size()}, self);
    return all;
}

}  // namespace longspan
