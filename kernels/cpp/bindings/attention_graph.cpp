#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>
#include <nanobind/stl/vector.h>

#include "attention_graph.hpp"
#include "bind.hpp"
#include "longspan/kernels.hpp"

namespace longspan {
namespace {

using CountsOut = nb::ndarray<nb::pytorch, std::int64_t, nb::c_contig, nb::device::cpu>;

// Workers must not throw; the signal's own exception is raised when they are done. Once true it stays true.
bool interrupted() {
    const nb::gil_scoped_acquire held;
    return PyErr_Occurred() || PyErr_CheckSignals() != 0;
}

template <class Call>
void run_released(Call&& call) {
    {
        const nb::gil_scoped_release released;
        call();
    }
    if (PyErr_Occurred()) throw nb::python_error();
}

AttentionGraph build(const FloatsIn& mean, const FloatsIn& to_codes, const FloatsIn& to_queries, const FloatsIn& rows,
                     const IntsIn& lists, std::string_view storage, int degree, int pivots, int candidates, int neighbours,
                     int cluster_size, int probes, int entries, float slack, int threads, std::string_view isa) {
    AttentionGraph graph = empty_graph(mean, to_codes, to_queries, storage);
    require(rows.ndim() == 2 && rows.shape(1) == to_codes.shape(1) && rows.shape(0) > 0, "rows must be [T, W], T at least 1");
    require(lists.ndim() == 2, "lists must be [S, k]");
    require(degree >= 4 && pivots >= 0 && candidates >= degree && neighbours >= 0 && cluster_size >= 1 && probes >= 1 &&
                entries >= 1 && slack >= 1.0F,
            "degree must be at least 4, candidates at least degree, entries at least 1, slack at least 1");
    const auto tokens = static_cast<std::int64_t>(rows.shape(0));
    require(tokens < most_nodes, "more tokens than a graph can hold");
    for (std::size_t i = 0; i < lists.size(); ++i) require(lists.data()[i] < tokens, "lists name a row that is not there");
    graph.degree = degree;
    const GraphBuildArgs args{&graph, rows.data(), tokens, lists.data(), static_cast<std::int64_t>(lists.shape(0)),
                              static_cast<int>(lists.shape(1)),
                              {degree, pivots, candidates, neighbours, cluster_size, probes, entries, slack}, threads, interrupted};
    const Kernels kernels = kernels_for(parse_isa(isa));
    run_released([&] { kernels.graph_build(args); });
    return graph;
}

void nearest(const FloatsIn& queries, const FloatsIn& rows, const IntsOut& ids, int threads, std::string_view isa) {
    require(queries.ndim() == 2 && rows.ndim() == 2 && ids.ndim() == 2 && queries.shape(1) == rows.shape(1) &&
                ids.shape(0) == queries.shape(0) && queries.shape(1) % 32 == 0 && ids.shape(1) > 0 && threads > 0,
            "queries must be [S, W], rows [N, W], ids [S, k], with W a multiple of 32, k and threads at least 1");
    const GraphNearestArgs args{queries.data(), static_cast<std::int64_t>(queries.shape(0)), rows.data(),
                                static_cast<std::int64_t>(rows.shape(0)), nullptr, static_cast<int>(rows.shape(1)),
                                static_cast<int>(ids.shape(1)), ids.data(), threads, interrupted};
    const Kernels kernels = kernels_for(parse_isa(isa));
    run_released([&] { kernels.graph_nearest(args); });
}

void search(const std::vector<const AttentionGraph*>& graphs, const FloatsIn& queries, const std::optional<IntsIn>& seeds,
            const std::vector<Stored>& keys, const IntsOut& ids, const CountsOut& distances, const CountsOut& hops, int beam,
            int patience, int rerank, int threads, std::string_view isa) {
    const std::size_t heads = graphs.size();
    require(queries.ndim() == 2 && queries.shape(0) == heads && ids.ndim() == 2 && ids.shape(0) == heads &&
                distances.size() == heads && hops.size() == heads,
            "graphs, queries, ids, distances and hops must have one row a query");
    require(ids.shape(1) > 0 && beam > 0 && threads > 0, "k, beam and threads must be at least 1");
    require(!seeds || (seeds->ndim() == 2 && seeds->shape(0) == heads), "seeds must be [H, s]");
    GraphSearchArgs args{};
    args.graphs = graphs;
    args.k = static_cast<int>(ids.shape(1));
    for (std::size_t h = 0; h < heads; ++h) {
        require(graphs[h] && static_cast<std::size_t>(graphs[h]->head_size) == queries.shape(1), "a graph has another head size");
        require(args.k <= graphs[h]->tokens(), "k is larger than the number of keys in a graph");
        for (std::size_t s = 0; seeds && s < seeds->shape(1); ++s)
            require(seeds->data()[h * seeds->shape(1) + s] < graphs[h]->tokens(), "seeds name a node that is not there");
    }
    args.queries = queries.data();
    args.beam = beam;
    args.patience = patience;
    args.seeds = seeds ? seeds->data() : nullptr;
    args.seed_count = seeds ? static_cast<int>(seeds->shape(1)) : 0;
    args.rerank = rerank;
    args.ids = ids.data();
    args.distances = distances.data();
    args.hops = hops.data();
    args.threads = threads;
    args.interrupted = interrupted;
    args.keys = stored_keys(keys, heads, queries.shape(1));
    for (const AttentionGraph* graph : args.graphs)
        require(keys.empty() || graph->tokens() == tokens_of(keys), "keys must hold as many tokens as the graph");
    const Kernels kernels = kernels_for(parse_isa(isa));
    run_released([&] { kernels.graph_search(args); });
}

void insert(AttentionGraph& graph, const FloatsIn& keys, const FloatsIn& bridges, int beam, int bridge_length, float slack,
            std::string_view isa) {
    const auto head_size = static_cast<std::size_t>(graph.head_size);
    require(keys.ndim() == 2 && keys.shape(1) == head_size && bridges.ndim() == 2 && bridges.shape(1) == head_size,
            "keys and bridges must be [N, D]");
    require(beam >= 1 && bridge_length >= 1 && slack >= 1.0F, "beam, bridge_length and slack must be at least 1");
    require(graph.tokens() + static_cast<std::int64_t>(keys.shape(0)) < most_nodes, "more tokens than a graph can hold");
    const GraphInsertArgs args{&graph, keys.data(), static_cast<std::int64_t>(keys.shape(0)), bridges.data(),
                               static_cast<std::int64_t>(bridges.shape(0)), beam, bridge_length, slack, interrupted};
    const Kernels kernels = kernels_for(parse_isa(isa));
    run_released([&] { kernels.graph_insert(args); });
}

}  // namespace

void bind_attention_graph(nb::module_& module) {
    nb::class_<AttentionGraph>(module, "AttentionGraph", "The graph of one KV head; see longspan_kernels.attention_graph.")
        .def_prop_ro("tokens", &AttentionGraph::tokens, "Keys in the graph.")
        .def_prop_ro("nbytes", &AttentionGraph::nbytes, "Memory held.")
        .def_ro("head_size", &AttentionGraph::head_size, "Size of a key.")
        .def_prop_ro("storage", [](const AttentionGraph& graph) { return name_of(graph.storage); }, "Type of the codes.")
        .def("copy", [](const AttentionGraph& graph) { return graph; }, "An independent copy.")
        .def("arrays", &graph_arrays, nb::sig("def arrays(self) -> dict[str, torch.Tensor]"),
             "Views of all parts by name, valid until the graph grows.");
    const auto plain = [](const char* name) { return nb::arg(name).noconvert(); };
    module.def("graph_restore", &restore_graph, plain("mean"), plain("to_codes"), plain("to_queries"), plain("step"), plain("codes"),
               plain("half_norms"), plain("edges"), plain("entries"), plain("token_of"), nb::arg("storage"), "A graph from its parts.");
    module.def("graph_nearest", &nearest, plain("queries"), plain("rows"), plain("ids"), nb::arg("threads"), nb::arg("isa"),
               "Exact best rows of every query by inner product into `ids` [S, k].");
    module.def("graph_build", &build, plain("mean"), plain("to_codes"), plain("to_queries"), plain("rows"), plain("lists"),
               nb::arg("storage"), nb::arg("degree"), nb::arg("pivots"), nb::arg("candidates"), nb::arg("neighbours"),
               nb::arg("cluster_size"), nb::arg("probes"), nb::arg("entries"), nb::arg("slack"), nb::arg("threads"),
               nb::arg("isa"), "A graph over `rows` [T, W] from the keys nearest to sampled queries, `lists` [S, k].");
    module.def("graph_search", &search, nb::arg("graphs"), plain("queries"), plain("seeds").none(), nb::arg("keys"), plain("ids"),
               plain("distances"), plain("hops"), nb::arg("beam"), nb::arg("patience"), nb::arg("rerank"), nb::arg("threads"),
               nb::arg("isa"), "Beam search of one graph a query into `ids` [H, k], with its work.");
    module.def("graph_insert", &insert, nb::arg("graph"), plain("keys"), plain("bridges"), nb::arg("beam"),
               nb::arg("bridge_length"), nb::arg("slack"), nb::arg("isa"), "Let new keys [N, D] into the graph.");
}

}  // namespace longspan
