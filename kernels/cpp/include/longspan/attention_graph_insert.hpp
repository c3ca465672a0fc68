// New keys enter a built graph: each looks for its neighbourhood, and for the keys that recent queries read with it.
#pragma once

#include <algorithm>
#include <limits>
#include <vector>

#include "longspan/attention_graph_codes.hpp"
#include "longspan/attention_graph_entries.hpp"
#include "longspan/attention_graph_prune.hpp"
#include "longspan/attention_graph_search.hpp"

namespace longspan::LONGSPAN_ISA {

// Codes of a handful of nodes in float32.
class DecodedRows {
  public:
    void reset(const AttentionGraph& graph, std::size_t most) {
        values_.resize(most * static_cast<std::size_t>(graph.width));
        next_ = values_.data();
    }
    const float* operator()(const AttentionGraph& graph, std::uint32_t node) {
        float* row = next_;
        next_ += graph.width;
        with_storage(graph.storage, [&](auto type) {
            decode_row<std::remove_const_t<std::remove_pointer_t<decltype(type)>>>(graph, node, row);
        });
        return row;
    }

  private:
    std::vector<float> values_;
    float* next_ = nullptr;
};

// Whether a new key lies apart: farther from every entry than half of the entries do from theirs, so that walks have to
// begin with it as well.
class Outposts {
  public:
    explicit Outposts(const AttentionGraph& graph) : width_(graph.width) {
        constexpr std::int64_t sampled = 4096;
        const std::int64_t count = std::min(graph.tokens(), sampled);
        DecodedRows rows;
        rows.reset(graph, static_cast<std::size_t>(count));
        const float* sample = rows(graph, 0);
        for (std::int64_t s = 1; s < count; ++s) rows(graph, static_cast<std::uint32_t>(s * graph.tokens() / count));
        weights_ = column_weights(sample, count, width_);
        rows.reset(graph, graph.entries.size());
        for (std::uint32_t entry : graph.entries) add(rows(graph, entry));
        std::vector<float> nearest;
        for (std::size_t e = 0; e < graph.entries.size(); ++e) nearest.push_back(distance(&rows_[e * width_], e));
        std::nth_element(nearest.begin(), nearest.begin() + nearest.size() / 2, nearest.end());
        apart_ = nearest[nearest.size() / 2];
    }

    bool admit(const float* row) {
        if (!(distance(row, std::numeric_limits<std::size_t>::max()) > apart_)) return false;
        add(row);
        return true;
    }

  private:
    void add(const float* row) { rows_.insert(rows_.end(), row, row + width_); }
    float distance(const float* row, std::size_t except) const {
        float least = std::numeric_limits<float>::infinity();
        for (std::size_t e = 0; e * width_ < rows_.size(); ++e)
            if (e != except) least = std::min(least, weighed_distance(row, &rows_[e * width_], weights_.data(), width_));
        return least;
    }

    int width_;
    std::vector<float> weights_;
    std::vector<float> rows_;  // of the entries, [E, W]
    float apart_ = std::numeric_limits<float>::infinity();
};

struct BridgeList {
    std::vector<std::uint64_t> keys;  // best first
};

template <bool NEAR>
inline void beam_over(const AttentionGraph& graph, SearchScratch& scratch, int beam) {
    scratch.reset(graph, beam);
    with_storage(graph.storage, [&](auto type) {
        using Code = std::remove_const_t<std::remove_pointer_t<decltype(type)>>;
        BeamSearch<Code, NEAR> search{graph, scratch, beam, 0};
        search.begin(nullptr, 0);
        search.run();
    });
}

// The neighbour's row takes the new node: in a free slot, or chosen anew among its edges and the node. An edge that has
// to go becomes one of the new node's, so that whatever could be reached still can. Whether the row took it.
inline bool link_back(AttentionGraph& graph, Pruner& pruner, DecodedRows& rows, std::uint32_t from, std::uint32_t to) {
    std::uint32_t* row = graph.edges.data() + static_cast<std::int64_t>(from) * graph.degree;
    std::uint32_t* end = row + graph.degree;
    std::uint32_t* free = std::find(row, end, no_node);
    if (free != end) {
        *free = to;
        return true;
    }
    std::uint32_t* own = graph.edges.data() + static_cast<std::int64_t>(to) * graph.degree;
    std::uint32_t* place = std::find(own, own + graph.degree, no_node);
    if (place == own + graph.degree) return false;
    rows.reset(graph, static_cast<std::size_t>(graph.degree) + 2);
    pruner.begin();
    for (int e = 0; e < graph.degree; ++e) pruner.consider(row[e], rows(graph, row[e]));
    pruner.consider(to, rows(graph, to));
    const std::vector<std::uint32_t>& kept = pruner.choose(from, rows(graph, from), graph.degree);
    if (std::find(kept.begin(), kept.end(), to) == kept.end()) return false;
    for (std::uint32_t* edge = row; edge != end; ++edge)
        if (std::find(kept.begin(), kept.end(), *edge) == kept.end() && std::find(own, place, *edge) == place) *place++ = *edge;
    std::fill(std::copy(kept.begin(), kept.end(), row), end, no_node);
    return true;
}

inline void insert_key(const GraphInsertArgs& args, std::vector<BridgeList>& bridges, const float* bridge_codes,
                       const float* row, SearchScratch& scratch, Outposts& outposts) {
    AttentionGraph& graph = *args.graph;
    const auto self = static_cast<std::uint32_t>(graph.tokens());
    scratch.query.weights.assign(row, row + graph.width);
    for (int w = 0; w < graph.width; ++w) scratch.query.weights[w] *= graph.step[w];
    if (graph.storage == Dtype::i8) quantise_query(scratch.query);
    beam_over<true>(graph, scratch, args.beam);
    DecodedRows rows;
    Pruner pruner{graph.width, std::max(args.beam, graph.degree + 1), args.slack};
    rows.reset(graph, static_cast<std::size_t>(scratch.frontier.size) + bridges.size() * args.bridge_length);
    for (int i = 0; i < scratch.frontier.size; ++i) {
        const std::uint32_t node = node_of(scratch.frontier.keys[i]);
        pruner.consider(node, rows(graph, node));
    }
    for (std::size_t b = 0; b < bridges.size(); ++b) {
        const std::uint64_t key = rank_key(product(bridge_codes + b * graph.width, row, graph.width), self);
        std::vector<std::uint64_t>& list = bridges[b].keys;
        if (static_cast<int>(list.size()) == args.bridge_length && key < list.back()) continue;
        for (std::uint64_t other : list) pruner.consider(node_of(other), rows(graph, node_of(other)));
        list.insert(std::upper_bound(list.begin(), list.end(), key, std::greater<>()), key);
        if (static_cast<int>(list.size()) > args.bridge_length) list.pop_back();
    }
    const std::vector<std::uint32_t> kept = pruner.choose(self, row, graph.degree - graph.degree / 3);
    append_codes(graph, 1, [&](std::int64_t) { return row; });
    graph.token_of.push_back(self);
    graph.node_of.push_back(self);
    graph.edges.insert(graph.edges.end(), kept.begin(), kept.end());
    graph.edges.resize(static_cast<std::size_t>(graph.tokens()) * graph.degree, no_node);
    bool linked = false;
    for (std::uint32_t node : kept) linked |= link_back(graph, pruner, rows, node, self);
    if (outposts.admit(row) || !linked) graph.entries.push_back(self);  // every node stays reachable
}

// Interrupted, it leaves a whole graph that lacks the keys that were not yet in.
inline void graph_insert(const GraphInsertArgs& args) {
    constexpr std::int64_t keys_a_poll = 16;  // some milliseconds
    AttentionGraph& graph = *args.graph;
    SearchScratch scratch;
    std::vector<BridgeList> bridges(static_cast<std::size_t>(args.bridge_count));
    std::vector<float> codes(static_cast<std::size_t>(args.bridge_count * graph.width));
    for (std::int64_t b = 0; b < args.bridge_count; ++b) {
        const float* query = args.bridges + b * graph.head_size;
        code_query(graph, query, scratch.query);
        beam_over<false>(graph, scratch, std::max(args.bridge_length, args.beam));
        const int count = std::min(args.bridge_length, scratch.frontier.size);
        bridges[b].keys.assign(scratch.frontier.keys.begin(), scratch.frontier.keys.begin() + count);
        for (std::uint64_t& key : bridges[b].keys) key &= ~expanded_mark;
        apply_map(query, graph.to_queries.data(), graph.head_size, graph.width, &codes[b * graph.width]);
    }
    Outposts outposts(graph);
    std::vector<float> centred(static_cast<std::size_t>(graph.head_size)), row(static_cast<std::size_t>(graph.width));
    for (std::int64_t t = 0; t < args.key_count; ++t) {
        if (t % keys_a_poll == 0 && args.interrupted && args.interrupted()) return;
        for (int d = 0; d < graph.head_size; ++d) centred[d] = args.keys[t * graph.head_size + d] - graph.mean[d];
        apply_map(centred.data(), graph.to_codes.data(), graph.head_size, graph.width, row.data());
        insert_key(args, bridges, codes.data(), row.data(), scratch, outposts);
    }
}

}  // namespace longspan::LONGSPAN_ISA
