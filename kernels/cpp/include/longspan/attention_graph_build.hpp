// Builds the graph: edges, connectivity, and the numbers of its nodes.
#pragma once

#include <algorithm>
#include <numeric>
#include <vector>

#include "longspan/attention_graph_clusters.hpp"
#include "longspan/attention_graph_codes.hpp"
#include "longspan/attention_graph_entries.hpp"
#include "longspan/attention_graph_project.hpp"

namespace longspan::LONGSPAN_ISA {

// Gives every node that no entry leads to an edge from a neighbour that one leads to; slots were kept free for this.
inline void connect(const GraphBuildArgs& args, const Clusters& clusters) {
    AttentionGraph& graph = *args.graph;
    std::vector<bool> reached(static_cast<std::size_t>(args.row_count), false);
    std::vector<std::uint32_t> stack;
    const auto spread = [&](std::uint32_t from) {
        if (reached[from]) return;
        reached[from] = true;
        stack.push_back(from);
        while (!stack.empty()) {
            const std::uint32_t* row = graph.edges.data() + static_cast<std::int64_t>(stack.back()) * graph.degree;
            stack.pop_back();
            for (int e = 0; e < graph.degree && row[e] != no_node; ++e)
                if (!reached[row[e]]) {
                    reached[row[e]] = true;
                    stack.push_back(row[e]);
                }
        }
    };
    const auto give_edge = [&](std::uint32_t from, std::uint32_t to) {
        std::uint32_t* row = graph.edges.data() + static_cast<std::int64_t>(from) * graph.degree;
        std::uint32_t* slot = std::find(row, row + graph.degree, no_node);
        if (slot == row + graph.degree) return false;
        *slot = to;
        return true;
    };
    for (std::uint32_t entry : graph.entries) spread(entry);
    std::int64_t roomy = 0;  // in cluster order, everything before it is full or unreached for good
    for (std::int64_t c = 0; c < clusters.count; ++c) {
        for (std::int64_t m = clusters.begin[c]; m < clusters.begin[c + 1]; ++m) {
            const std::uint32_t lost = clusters.members[m];
            if (reached[lost]) continue;
            bool found = false;
            for (std::int64_t o = clusters.begin[c]; o < clusters.begin[c + 1] && !found; ++o)
                found = reached[clusters.members[o]] && give_edge(clusters.members[o], lost);
            for (std::int64_t o = roomy; o < args.row_count && !found; ++o) {
                found = reached[clusters.members[o]] && give_edge(clusters.members[o], lost);
                if (!found && reached[clusters.members[o]] && o == roomy) ++roomy;
            }
            spread(lost);
        }
    }
}

// Numbers the nodes anew: entries, then what the sampled queries read, then the rest, each by clusters. A search walks
// among the first two, so that the memory it touches is small.
inline void renumber(const GraphBuildArgs& args, const Appearances& seen, const Clusters& clusters) {
    AttentionGraph& graph = *args.graph;
    const auto tokens = static_cast<std::size_t>(args.row_count);
    std::vector<std::uint8_t> remoteness(tokens);
    for (std::size_t t = 0; t < tokens; ++t) remoteness[t] = seen.begin[t + 1] > seen.begin[t] ? 1 : 2;
    for (std::uint32_t entry : graph.entries) remoteness[entry] = 0;
    graph.token_of.assign(clusters.members.begin(), clusters.members.end());
    std::stable_sort(graph.token_of.begin(), graph.token_of.end(),
                     [&](std::uint32_t a, std::uint32_t b) { return remoteness[a] < remoteness[b]; });
    graph.node_of.resize(tokens);
    for (std::size_t node = 0; node < tokens; ++node) graph.node_of[graph.token_of[node]] = static_cast<std::uint32_t>(node);
    const Array<std::uint32_t> before = graph.edges;
    for (std::size_t node = 0; node < tokens; ++node)
        for (int e = 0; e < graph.degree; ++e) {
            const std::uint32_t other = before[graph.token_of[node] * static_cast<std::size_t>(graph.degree) + e];
            graph.edges[node * graph.degree + e] = other == no_node ? no_node : graph.node_of[other];
        }
    for (std::uint32_t& entry : graph.entries) entry = graph.node_of[entry];
}

// Builds edges, entries and codes; false if it was interrupted.
inline bool graph_build(const GraphBuildArgs& args) {
    AttentionGraph& graph = *args.graph;
    const auto interrupted = [&] { return args.interrupted && args.interrupted(); };
    const std::int64_t wanted = (args.row_count + args.settings.cluster_size - 1) / args.settings.cluster_size;
    Clusters clusters = cluster_rows(args.rows, args.row_count, graph.width, wanted, args.threads, args.interrupted);
    if (interrupted()) return false;
    list_members(clusters);
    std::vector<std::int32_t> near(static_cast<std::size_t>(args.row_count) * args.settings.neighbours);
    if (args.settings.neighbours > 0)
        near_lists(args.rows, graph.width, clusters, args.settings.probes, args.settings.neighbours, near.data(), args.threads,
                   args.interrupted);
    if (interrupted()) return false;
    graph.entries = choose_entries(args.rows, args.row_count, graph.width, args.settings.entries);
    if (args.settings.neighbours > 0) near_entries(args, graph.entries, near);
    if (interrupted()) return false;
    const Appearances seen = find_appearances(args);
    graph.edges.assign(static_cast<std::size_t>(args.row_count) * graph.degree, no_node);
    const int spare = std::min(2, graph.degree / 4);  // slots for connect
    project(args, seen, near, graph.degree - spare);
    if (interrupted()) return false;
    reverse(args, graph.degree - spare);
    if (interrupted()) return false;
    connect(args, clusters);
    renumber(args, seen, clusters);
    write_codes(graph, args.rows, args.row_count);
    return true;
}

}  // namespace longspan::LONGSPAN_ISA
