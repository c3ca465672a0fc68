// Beam search: expand the best unexpanded node of a bounded, sorted frontier until none is left.
#pragma once

#include <algorithm>
#include <cstring>
#include <numeric>
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
        const auto begin = keys.begin();
        const int place = static_cast<int>(std::upper_bound(begin, begin + size, key, std::greater<>()) - begin);
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

// Scores by `query . code`, or by nearness to the code that `query` holds when NEAR.
template <class T, bool NEAR>
struct BeamSearch {
    const AttentionGraph& graph;
    SearchScratch& scratch;
    int goal;      // the first so many of the frontier are what is looked for
    int patience;  // expansions that do not change the goal before giving up; 0: never

    const T* codes() const { return reinterpret_cast<const T*>(graph.codes.data()); }

    // Scores the first `count` of the batch and puts the good ones into the frontier; the best place won.
    int offer(int count) {
        score_nodes(scratch.query, codes(), graph.width, scratch.batch.data(), count, scratch.scores.data());
        scratch.distances += count;
        int best = static_cast<int>(scratch.frontier.keys.size());
        for (int i = 0; i < count; ++i) {
            const std::uint32_t node = scratch.batch[i];
            const float score = scratch.scores[i] - (NEAR ? graph.half_norms[node] : 0.0F);
            const std::uint64_t key = rank_key(score, node);
            if (!scratch.frontier.takes(key)) continue;
            best = std::min(best, scratch.frontier.insert(key));
            prefetch_row(graph.edges.data() + static_cast<std::int64_t>(node) * graph.degree, 4 * graph.degree);
        }
        return best;
    }

    void begin(const std::int32_t* seeds, int seed_count) {
        int count = 0;
        for (std::uint32_t node : graph.entries)
            if (scratch.visit(node)) scratch.batch[count++] = node;
        offer(count);
        const int capacity = static_cast<int>(scratch.batch.size());
        count = 0;
        for (int s = 0; s < seed_count; ++s) {
            if (seeds[s] < 0 || !scratch.visit(static_cast<std::uint32_t>(seeds[s]))) continue;
            scratch.batch[count++] = static_cast<std::uint32_t>(seeds[s]);
            if (count == capacity || s + 1 == seed_count) {
                offer(count);
                count = 0;
            }
        }
        if (count > 0) offer(count);
    }

    void run() {
        int idle = 0;
        for (std::uint32_t node; (node = scratch.frontier.next()) != no_node;) {
            ++scratch.hops;
            const std::uint32_t* row = graph.edges.data() + static_cast<std::int64_t>(node) * graph.degree;
            int count = 0;
            for (int e = 0; e < graph.degree && row[e] != no_node; ++e) {
                if (!scratch.visit(row[e])) continue;
                scratch.batch[count++] = row[e];
                prefetch_row(codes() + static_cast<std::int64_t>(row[e]) * graph.width,
                             graph.width * static_cast<int>(sizeof(T)));
            }
            idle = count > 0 && offer(count) < goal ? 0 : idle + 1;
            if (patience > 0 && idle >= patience && scratch.frontier.size >= goal) return;
        }
    }
};

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
    const std::int64_t group = head / args.query_rows_a_key_head;
    with_storage(args.key_dtype, [&](auto type) {
        const auto row_of = [&](std::uint32_t node) {
            std::size_t part = args.keys.size() - 1;
            while (args.keys[part].first > std::int64_t{node}) --part;
            const KeyPart& keys = args.keys[part];
            return static_cast<decltype(type)>(keys.keys) + group * keys.head_stride + (node - keys.first) * keys.row_stride;
        };
        const int bytes = graph.head_size * bytes_of(args.key_dtype);
        for (int i = 0; i < count; ++i) {
            prefetch_row(row_of(node_of(frontier.keys[std::min(i + 4, count - 1)])), bytes);
            const std::uint32_t node = node_of(frontier.keys[i]);
            const float score = product(args.queries + head * graph.head_size, row_of(node), graph.head_size);
            frontier.keys[i] = rank_key(score, node);
        }
    });
    scratch.distances += count;
    std::sort(frontier.keys.begin(), frontier.keys.begin() + count, std::greater<>());
}

inline void search_head(const GraphSearchArgs& args, std::int64_t head, SearchScratch& scratch) {
    const AttentionGraph& graph = *args.graphs[head];
    std::int32_t* ids = args.ids + head * args.k;
    if (args.k == graph.tokens()) {  // nothing to choose
        std::iota(ids, ids + args.k, 0);
        args.distances[head] = args.hops[head] = 0;
        return;
    }
    scratch.reset(graph, std::max(args.beam, args.k));
    code_query(graph, args.queries + head * graph.head_size, scratch.query);
    const std::int32_t* seeds = args.seeds ? args.seeds + head * args.seed_count : nullptr;
    with_storage(graph.storage, [&](auto type) {
        using Code = std::remove_const_t<std::remove_pointer_t<decltype(type)>>;
        BeamSearch<Code, false> search{graph, scratch, args.k, args.patience};
        search.begin(seeds, args.seeds ? args.seed_count : 0);
        search.run();
    });
    if (!args.keys.empty()) rerank(args, head, scratch);
    for (int i = 0; i < args.k; ++i)
        ids[i] = i < scratch.frontier.size ? static_cast<std::int32_t>(node_of(scratch.frontier.keys[i])) : -1;
    args.distances[head] = scratch.distances;
    args.hops[head] = scratch.hops;
}

inline void graph_search(const GraphSearchArgs& args) {
    const auto heads = static_cast<std::int64_t>(args.graphs.size());
    Interruption interruption{args.interrupted};
#pragma omp parallel num_threads(args.threads) if (args.threads > 1 && heads > 1)
    {
        SearchScratch scratch;
#pragma omp for schedule(dynamic, 1)
        for (std::int64_t head = 0; head < heads; ++head) {
            if (interruption.stop()) continue;
            search_head(args, head, scratch);
            interruption.poll();
        }
    }
}

}  // namespace longspan::LONGSPAN_ISA
