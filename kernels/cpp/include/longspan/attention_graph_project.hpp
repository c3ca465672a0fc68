// From the sampled queries' nearest keys to edges between keys: projection and reverse edges.
#pragma once

#include <algorithm>
#include <numeric>
#include <vector>

#include "longspan/attention_graph_prune.hpp"

namespace longspan::LONGSPAN_ISA {

// In which lists a key appears, those in which it ranks best first.
struct Appearances {
    std::vector<std::int64_t> begin;   // [T + 1]
    std::vector<std::uint32_t> lists;  // list numbers
};

inline Appearances find_appearances(const GraphBuildArgs& args) {
    Appearances found;
    found.begin.assign(static_cast<std::size_t>(args.row_count) + 1, 0);
    const std::int64_t total = args.list_count * args.list_length;
    for (std::int64_t i = 0; i < total; ++i)
        if (args.lists[i] >= 0) ++found.begin[args.lists[i] + 1];
    std::partial_sum(found.begin.begin(), found.begin.end(), found.begin.begin());
    found.lists.resize(static_cast<std::size_t>(found.begin.back()));
    std::vector<std::int64_t> at(found.begin.begin(), found.begin.end() - 1);
    for (int rank = 0; rank < args.list_length; ++rank)
        for (std::int64_t s = 0; s < args.list_count; ++s)
            if (const std::int32_t key = args.lists[s * args.list_length + rank]; key >= 0)
                found.lists[at[key]++] = static_cast<std::uint32_t>(s);
    return found;
}

inline void write_edges(AttentionGraph& graph, std::int64_t node, const std::vector<std::uint32_t>& kept) {
    std::uint32_t* row = graph.edges.data() + node * graph.degree;
    std::fill_n(row, graph.degree, no_node);
    std::copy(kept.begin(), kept.end(), row);
}

// Every key meets the keys that are read with it, and its own neighbourhood.
inline void project(const GraphBuildArgs& args, const Appearances& seen, const std::vector<std::int32_t>& near, int degree) {
    AttentionGraph& graph = *args.graph;
    const auto row = [&](auto t) { return args.rows + static_cast<std::int64_t>(t) * graph.width; };
    Interruption interruption{args.interrupted};
#pragma omp parallel num_threads(args.threads) if (args.threads > 1)
    {
        Pruner pruner{graph.width, args.settings.candidates, args.settings.slack};
#pragma omp for schedule(dynamic, 256)
        for (std::int64_t t = 0; t < args.row_count; ++t) {
            if (interruption.stop()) continue;
            pruner.begin();
            const std::int64_t last = std::min(seen.begin[t + 1], seen.begin[t] + args.settings.pivots);
            for (std::int64_t a = seen.begin[t]; a < last; ++a)
                for (int i = 0; i < args.list_length; ++i)
                    if (const std::int32_t key = args.lists[std::int64_t{seen.lists[a]} * args.list_length + i]; key >= 0)
                        pruner.consider(static_cast<std::uint32_t>(key), row(key));
            for (int i = 0; i < args.settings.neighbours; ++i)
                if (const std::int32_t key = near[t * args.settings.neighbours + i]; key >= 0)
                    pruner.consider(static_cast<std::uint32_t>(key), row(key));
            write_edges(graph, t, pruner.choose(static_cast<std::uint32_t>(t), row(t), degree));
            if (t % 256 == 0) interruption.poll();
        }
    }
}

// Every edge is offered in the other direction too.
inline void reverse(const GraphBuildArgs& args, int degree) {
    AttentionGraph& graph = *args.graph;
    const Array<std::uint32_t> forward = graph.edges;
    std::vector<std::int64_t> begin(static_cast<std::size_t>(args.row_count) + 1, 0);
    for (std::uint32_t node : forward)
        if (node != no_node) ++begin[node + 1];
    std::partial_sum(begin.begin(), begin.end(), begin.begin());
    std::vector<std::uint32_t> sources(static_cast<std::size_t>(begin.back()));
    std::vector<std::int64_t> at(begin.begin(), begin.end() - 1);
    for (std::size_t e = 0; e < forward.size(); ++e)
        if (forward[e] != no_node) sources[at[forward[e]]++] = static_cast<std::uint32_t>(e / graph.degree);
    const auto row = [&](auto t) { return args.rows + static_cast<std::int64_t>(t) * graph.width; };
    Interruption interruption{args.interrupted};
#pragma omp parallel num_threads(args.threads) if (args.threads > 1)
    {
        Pruner pruner{graph.width, args.settings.candidates, args.settings.slack};
#pragma omp for schedule(dynamic, 256)
        for (std::int64_t t = 0; t < args.row_count; ++t) {
            if (interruption.stop()) continue;
            pruner.begin();
            for (int e = 0; e < graph.degree && forward[t * graph.degree + e] != no_node; ++e)
                pruner.consider(forward[t * graph.degree + e], row(forward[t * graph.degree + e]));
            for (std::int64_t s = begin[t]; s < begin[t + 1]; ++s) pruner.consider(sources[s], row(sources[s]));
            write_edges(graph, t, pruner.choose(static_cast<std::uint32_t>(t), row(t), degree));
            if (t % 256 == 0) interruption.poll();
        }
    }
}

}  // namespace longspan::LONGSPAN_ISA
