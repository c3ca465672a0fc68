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
    // The best of many, instead of what there was.
    void fill(std::vector<std::uint64_t>& offered) {
        size = static_cast<int>(std::min(keys.size(), offered.size()));
        cursor = 0;
        if (offered.size() > keys.size())
            std::nth_element(offered.begin(), offered.begin() + size, offered.end(), std::greater<>());
        std::copy_n(offered.begin(), size, keys.begin());
        std::sort(keys.begin(), keys.begin() + size, std::greater<>());
    }
    bool takes(std::uint64_t key) const { return size < static_cast<int>(keys.size()) || key > keys[size - 1]; }
    // The place it got; the caller has asked `takes`.
    int insert(std::uint64_t key) {
        int place = 0;  // how many are better; the steps are the same whatever the outcome, so none is mispredicted
        for (int length = size; length > 0;) {
            const int half = (length + 1) / 2;
            place += keys[place + half - 1] > key ? half : 0;
            length -= half;
        }
        if (size < static_cast<int>(keys.size())) ++size;
        std::memmove(&keys[place] + 1, &keys[place], static_cast<std::size_t>(size - 1 - place) * sizeof(std::uint64_t));
        keys[place] = key;
        cursor = std::min(cursor, place);
        return place;
    }
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
        const std::size_t widest = std::max<std::size_t>(static_cast<std::size_t>(graph.degree), graph.entries.size());
        batch.resize(widest);
        scores.resize(widest);
        distances = hops = 0;
    }
    bool visit(std::uint32_t node) {
        std::uint64_t& word = visited[node >> 6];
        const std::uint64_t bit = std::uint64_t{1} << (node & 63);
        if (word & bit) return false;
        word |= bit;
        return true;
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
        int count = 0;
        for (std::uint32_t entry : graph.entries)
            if (scratch.visit(entry)) scratch.batch[count++] = entry;
        score(count);
        scratch.offered.clear();
        for (int i = 0; i < count; ++i) scratch.offered.push_back(key_of(i));
        scratch.frontier.fill(scratch.offered);
        const int capacity = static_cast<int>(scratch.batch.size());
        count = 0;
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
            if (!scratch.visit(row[e])) continue;
            scratch.batch[batched++] = row[e];
            prefetch_row(codes() + static_cast<std::int64_t>(row[e]) * graph.width, graph.width * static_cast<int>(sizeof(T)));
        }
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
