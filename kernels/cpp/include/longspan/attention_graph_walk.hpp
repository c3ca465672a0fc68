// One beam search: expand the best unexpanded node of a bounded, sorted frontier until none is left.
#pragma once

#include <algorithm>
#include <cstring>
#include <vector>

#include "longspan/attention_graph_nearest.hpp"
#include "longspan/attention_graph_scores.hpp"

namespace longspan::LONGSPAN_ISA {

inline constexpr std::uint64_t expanded_mark = 1;

struct Frontier {
    std::vector<std::uint64_t> keys;  // best first, `expanded_mark` set where expanded
    int size = 0;
    int cursor = 0;  // nothing before it is unexpanded

    void reset(int beam) {
        keys.resize(static_cast<std::size_t>(beam));
        size = cursor = 0;
    }
    bool takes(std::uint64_t key) const { return size < static_cast<int>(keys.size()) || key > keys[size - 1]; }
    // The place it got; the caller has asked `takes`.
    int insert(std::uint64_t key) {
        // How many are better. The same steps whatever the outcome, so that none is mispredicted: halves, then a count.
        int place = 0, length = size;
        for (; length > counted_at_once; length -= length / 2) place += keys[place + length / 2 - 1] > key ? length / 2 : 0;
        int better = 0;
        for (int i = 0; i < length; ++i) better += keys[place + i] > key;
        place += better;
        if (size < static_cast<int>(keys.size())) ++size;
        std::memmove(&keys[place] + 1, &keys[place], static_cast<std::size_t>(size - 1 - place) * sizeof(std::uint64_t));
        keys[place] = key;
        cursor = std::min(cursor, place);
        return place;
    }
    static constexpr int counted_at_once = 64;

    // The best unexpanded node, marked as expanded; no_node if there is none.
    std::uint32_t next() {
        while (cursor < size && (keys[cursor] & expanded_mark)) ++cursor;
        if (cursor == size) return no_node;
        keys[cursor] |= expanded_mark;
        return node_of(keys[cursor]);
    }
};

// The memory of one search; kept by a thread from one query to the next.
struct SearchScratch {
    Frontier frontier;
    CodedQuery query;
    std::vector<std::uint64_t> visited;  // a bit a node: 16 KiB at 128k tokens, which stays in the first cache
    std::vector<std::uint32_t> batch;
    std::vector<float> scores;
    std::vector<std::uint64_t> offered;
    std::int64_t distances = 0;
    std::int64_t hops = 0;

    void reset(const AttentionGraph& graph, int beam) {
        frontier.reset(beam);
        visited.assign(static_cast<std::size_t>(graph.tokens() + 63) / 64, 0);
        const std::size_t widest = std::max<std::size_t>(static_cast<std::size_t>(graph.degree) + 1, graph.entries.size());
        batch.resize(widest);
        scores.resize(widest);
        distances = hops = 0;
    }
    bool visit(std::uint32_t node) {
        std::uint64_t& word = visited[node >> 6];
        const std::uint64_t before = word;
        word = before | std::uint64_t{1} << (node & 63);
        return before != word;
    }
};

// Scores by `query . code`, or by nearness to the code that `query` holds when NEAR. A step is cut in three, each of
// which fetches what the next one reads: the steps of several searches are interleaved to cover that time.
template <class T, bool NEAR>
struct BeamSearch {
    const AttentionGraph& graph;
    SearchScratch& scratch;
    int goal;      // the first so many of the frontier are what is looked for
    int patience;  // expansions that do not change the goal before giving up; 0: never
    static constexpr std::size_t entries_kept = 48;
    std::uint32_t node = no_node;
    int batched = 0;
    int idle = 0;

    const T* codes() const { return reinterpret_cast<const T*>(graph.codes.data()); }
    const std::uint32_t* edges() const { return graph.edges.data() + static_cast<std::int64_t>(node) * graph.degree; }

    // Scores the first `count` of the batch; key_of(i) then ranks them.
    void score(int count) {
        score_nodes(scratch.query, codes(), graph.width, scratch.batch.data(), count, scratch.scores.data());
        scratch.distances += count;
    }
    std::uint64_t key_of(int i) const {
        const std::uint32_t scored = scratch.batch[i];
        return rank_key(scratch.scores[i] - (NEAR ? graph.half_norms[scored] : 0.0F), scored);
    }
    // Puts the good ones of the first `count` of the batch into the frontier; the best place won.
    int offer(int count) {
        score(count);
        int best = static_cast<int>(scratch.frontier.keys.size());
        for (int i = 0; i < count; ++i)
            if (const std::uint64_t key = key_of(i); scratch.frontier.takes(key))
                best = std::min(best, scratch.frontier.insert(key));
        return best;
    }

    void begin(const std::int32_t* seeds, int seed_count) {
        begin_with_entries();
        const int capacity = static_cast<int>(scratch.batch.size());
        int count = 0;
        for (int s = 0; s < seed_count; ++s) {
            const std::uint32_t seed = seeds[s] < 0 ? no_node : graph.node_of[seeds[s]];
            if (seed == no_node || !scratch.visit(seed)) continue;
            scratch.batch[count++] = seed;
            if (count < capacity) continue;
            offer(count);
            count = 0;
        }
        if (count > 0) offer(count);
    }

    // The best entries; the others stay unvisited, so that the walk may still come upon them.
    void begin_with_entries() {
        const int count = static_cast<int>(graph.entries.size());
        std::copy(graph.entries.begin(), graph.entries.end(), scratch.batch.begin());
        score(count);
        std::vector<std::uint64_t>& offered = scratch.offered;
        offered.resize(graph.entries.size());
        for (int i = 0; i < count; ++i) offered[i] = key_of(i);
        const auto kept = std::min<std::size_t>({entries_kept, offered.size(), scratch.frontier.keys.size()});
        std::nth_element(offered.begin(), offered.begin() + (kept - 1), offered.end(), std::greater<>());
        std::sort(offered.begin(), offered.begin() + kept, std::greater<>());
        std::copy_n(offered.begin(), kept, scratch.frontier.keys.begin());
        scratch.frontier.size = static_cast<int>(kept);
        for (std::size_t i = 0; i < kept; ++i) scratch.visit(node_of(offered[i]));
    }

    // Chooses the node to expand; false at the end of the search.
    bool pick() {
        if (patience > 0 && idle >= patience && scratch.frontier.size >= goal) return false;
        node = scratch.frontier.next();
        if (node == no_node) return false;
        ++scratch.hops;
        prefetch_row(edges(), 4 * graph.degree);
        return true;
    }
    void gather() {
        batched = 0;
        const std::uint32_t* row = edges();
        for (int e = 0; e < graph.degree && row[e] != no_node; ++e) {
            scratch.batch[batched] = row[e];
            batched += scratch.visit(row[e]);
        }
        for (int i = 0; i < batched; ++i)
            prefetch_row(codes() + static_cast<std::int64_t>(scratch.batch[i]) * graph.width,
                         graph.width * static_cast<int>(sizeof(T)));
    }
    void settle() { idle = batched > 0 && offer(batched) < goal ? 0 : idle + 1; }

    void run() {
        while (pick()) {
            gather();
            settle();
        }
    }
};

}  // namespace longspan::LONGSPAN_ISA
