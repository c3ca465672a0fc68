// Searches of many queries: a few at a time on each thread, in step, then ordered by the keys themselves.
#pragma once

#include <algorithm>
#include <numeric>
#include <vector>

#include "longspan/attention_graph_walk.hpp"
#include "longspan/exact_order.hpp"

namespace longspan::LONGSPAN_ISA {

inline void code_query(const AttentionGraph& graph, const float* q, CodedQuery& query) {
    query.weights.resize(static_cast<std::size_t>(graph.width));
    apply_map(q, graph.to_queries.data(), graph.head_size, graph.width, query.weights.data());
    for (int w = 0; w < graph.width; ++w) query.weights[w] *= graph.step[w];
    if (graph.storage == Dtype::i8) quantise_query(query);
}

// The best of the frontier scored again with the keys themselves.
inline void rerank(const GraphSearchArgs& args, std::int64_t head, SearchScratch& scratch) {
    const AttentionGraph& graph = *args.graphs[head];
    Frontier& frontier = scratch.frontier;
    const int count = std::min(frontier.size, std::max(args.rerank, args.k));
    order_exactly(args.keys, head, args.queries + head * graph.head_size, graph.head_size, frontier.keys.data(), count,
                  [&graph](std::uint32_t node) { return std::int64_t{graph.token_of[node]}; });
    scratch.distances += count;
}

inline constexpr int most_together = 4;  // searches whose steps one thread interleaves

template <class T>
inline void search_together(const GraphSearchArgs& args, std::int64_t first, int count, SearchScratch* scratches) {
    std::vector<BeamSearch<T, false>> searches;
    for (int i = 0; i < count; ++i) {
        const AttentionGraph& graph = *args.graphs[first + i];
        scratches[i].reset(graph, std::max(args.beam, args.k));
        code_query(graph, args.queries + (first + i) * graph.head_size, scratches[i].query);
        searches.push_back({graph, scratches[i], args.k, args.patience});
        searches.back().begin(args.seeds ? args.seeds + (first + i) * args.seed_count : nullptr,
                              args.seeds ? args.seed_count : 0);
    }
    BeamSearch<T, false>* open[most_together];
    int opened = 0;
    for (BeamSearch<T, false>& search : searches)
        if (search.pick()) open[opened++] = &search;
    while (opened > 0) {
        for (int i = 0; i < opened; ++i) open[i]->gather();
        int still = 0;
        for (int i = 0; i < opened; ++i) {
            open[i]->settle();
            if (open[i]->pick()) open[still++] = open[i];
        }
        opened = still;
    }
}

inline void report(const GraphSearchArgs& args, std::int64_t head, SearchScratch& scratch) {
    const AttentionGraph& graph = *args.graphs[head];
    if (!args.keys.parts.empty()) rerank(args, head, scratch);
    for (int i = 0; i < args.k; ++i)
        args.ids[head * args.k + i] =
            i < scratch.frontier.size ? static_cast<std::int32_t>(graph.token_of[node_of(scratch.frontier.keys[i])]) : -1;
    args.distances[head] = scratch.distances;
    args.hops[head] = scratch.hops;
}

inline void search_heads(const GraphSearchArgs& args, std::int64_t first, int count, SearchScratch* scratches) {
    if (args.k == args.graphs[first]->tokens()) {  // nothing to choose
        for (std::int64_t head = first; head < first + count; ++head) {
            std::iota(args.ids + head * args.k, args.ids + (head + 1) * args.k, 0);
            args.distances[head] = args.hops[head] = 0;
        }
        return;
    }
    with_storage(args.graphs[first]->storage, [&](auto type) {
        search_together<std::remove_const_t<std::remove_pointer_t<decltype(type)>>>(args, first, count, scratches);
    });
    for (int i = 0; i < count; ++i) report(args, first + i, scratches[i]);
}

// As many of the queries from `first` on as can be searched together: graphs of one storage and size, a fair share.
inline int team_at(const GraphSearchArgs& args, std::int64_t first) {
    const auto heads = static_cast<std::int64_t>(args.graphs.size());
    const std::int64_t most = std::clamp<std::int64_t>(heads / args.threads, 1, most_together);
    int count = 1;
    while (count < most && first + count < heads && args.graphs[first + count]->storage == args.graphs[first]->storage &&
           args.graphs[first + count]->tokens() == args.graphs[first]->tokens())
        ++count;
    return count;
}

inline void graph_search(const GraphSearchArgs& args) {
    const auto heads = static_cast<std::int64_t>(args.graphs.size());
    std::vector<std::int64_t> begin;
    for (std::int64_t head = 0; head < heads; head += team_at(args, head)) begin.push_back(head);
    begin.push_back(heads);
    const auto teams = static_cast<std::int64_t>(begin.size()) - 1;
    Interruption interruption{args.interrupted};
#pragma omp parallel num_threads(args.threads) if (args.threads > 1 && teams > 1)
    {
        SearchScratch scratches[most_together];
#pragma omp for schedule(dynamic, 1)
        for (std::int64_t team = 0; team < teams; ++team) {
            if (interruption.stop()) continue;
            search_heads(args, begin[team], static_cast<int>(begin[team + 1] - begin[team]), scratches);
            interruption.poll();
        }
    }
}

}  // namespace longspan::LONGSPAN_ISA
