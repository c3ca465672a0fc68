// Exact nearest rows of many queries by inner product: a blocked product whose results are filtered as they appear.
#pragma once

#include <algorithm>
#include <bit>
#include <limits>
#include <vector>

#include "longspan/attention_graph_args.hpp"
#include "longspan/simd.hpp"

namespace longspan::LONGSPAN_ISA {

// Orders like the score, then by id; a larger key is a better one. The low bit is free for a mark.
inline std::uint64_t rank_key(float score, std::uint32_t node) {
    const auto bits = std::bit_cast<std::uint32_t>(score);
    const std::uint32_t ordered = bits & 0x80000000U ? ~bits : bits | 0x80000000U;
    return std::uint64_t{ordered} << 32 | (node << 1);
}
inline std::uint32_t node_of(std::uint64_t key) { return static_cast<std::uint32_t>(key) >> 1; }
inline float score_of(std::uint64_t key) {
    const auto ordered = static_cast<std::uint32_t>(key >> 32);
    return std::bit_cast<float>(ordered & 0x80000000U ? ordered & 0x7fffffffU : ~ordered);
}

inline constexpr int nearest_queries = 2 * Vec::lanes;              // a tile: two registers of queries
inline constexpr int nearest_rows = Vec::lanes == 16 ? 8 : 4;       // by so many rows
inline constexpr int nearest_tiles = Vec::lanes == 16 ? 8 : 16;     // tiles of queries that share a block of rows
inline constexpr std::int64_t nearest_block = 256;

// The best k of a stream: collects up to twice as many, then drops the worse half.
struct BestOf {
    std::vector<std::uint64_t> found;
    void offer(std::uint64_t key, int k, float& threshold) {
        found.push_back(key);
        if (static_cast<int>(found.size()) >= 2 * k + 16) shrink(k, threshold);
    }
    void shrink(int k, float& threshold) {
        if (static_cast<int>(found.size()) < k) return;
        std::nth_element(found.begin(), found.begin() + (k - 1), found.end(), std::greater<>());
        found.resize(static_cast<std::size_t>(k));
        threshold = score_of(found.back());
    }
};

// Products of `nearest_rows` rows with one packed tile; `count` of the rows are real.
inline void nearest_tile(const GraphNearestArgs& args, const float* packed, std::int64_t first, int count, BestOf* best,
                         float* thresholds, int queries) {
    const float* row[nearest_rows];
    Vec low[nearest_rows], high[nearest_rows];
    for (int r = 0; r < nearest_rows; ++r) {
        row[r] = args.rows + (first + std::min(r, count - 1)) * args.width;
        low[r] = high[r] = broadcast(args.bias ? args.bias[first + std::min(r, count - 1)] : 0.0F);
    }
    for (int d = 0; d < args.width; ++d) {
        const Vec left = load(packed + d * nearest_queries), right = load(packed + d * nearest_queries + Vec::lanes);
        for (int r = 0; r < nearest_rows; ++r) {
            const Vec x = broadcast(row[r][d]);
            low[r] = fma(left, x, low[r]);
            high[r] = fma(right, x, high[r]);
        }
    }
    Vec top_low = low[0], top_high = high[0];
    for (int r = 1; r < nearest_rows; ++r) {
        top_low = max(top_low, low[r]);
        top_high = max(top_high, high[r]);
    }
    const Vec over = max(top_low - load(thresholds), top_high - load(thresholds + Vec::lanes));
    if (!(max(over) > 0.0F)) return;
    float product[nearest_queries];
    for (int r = 0; r < count; ++r) {
        store(product, low[r]);
        store(product + Vec::lanes, high[r]);
        for (int q = 0; q < queries; ++q)
            if (product[q] > thresholds[q])
                best[q].offer(rank_key(product[q], static_cast<std::uint32_t>(first + r)), args.k, thresholds[q]);
    }
}

// Up to nearest_tiles * nearest_queries queries against all rows.
inline void nearest_panel(const GraphNearestArgs& args, std::int64_t begin, std::int64_t end) {
    const int tiles = static_cast<int>((end - begin + nearest_queries - 1) / nearest_queries);
    std::vector<float> packed(static_cast<std::size_t>(tiles) * args.width * nearest_queries, 0.0F);
    std::vector<float> thresholds(static_cast<std::size_t>(tiles) * nearest_queries, -std::numeric_limits<float>::infinity());
    std::vector<BestOf> best(thresholds.size());
    for (std::int64_t q = begin; q < end; ++q) {
        float* tile = packed.data() + (q - begin) / nearest_queries * args.width * nearest_queries;
        for (int d = 0; d < args.width; ++d)
            tile[d * nearest_queries + (q - begin) % nearest_queries] = args.queries[q * args.width + d];
        best[q - begin].found.reserve(static_cast<std::size_t>(2 * args.k + 16));
    }
    for (std::int64_t block = 0; block < args.row_count; block += nearest_block) {
        const std::int64_t stop = std::min(block + nearest_block, args.row_count);
        for (int t = 0; t < tiles; ++t) {
            const int first_query = t * nearest_queries;
            const int queries = std::min<int>(nearest_queries, static_cast<int>(end - begin) - first_query);
            for (std::int64_t row = block; row < stop; row += nearest_rows)
                nearest_tile(args, packed.data() + static_cast<std::size_t>(first_query) * args.width, row,
                             static_cast<int>(std::min<std::int64_t>(nearest_rows, stop - row)),
                             best.data() + first_query, thresholds.data() + first_query, queries);
        }
    }
    for (std::int64_t q = begin; q < end; ++q) {
        BestOf& mine = best[q - begin];
        mine.shrink(args.k, thresholds[q - begin]);
        std::sort(mine.found.begin(), mine.found.end(), std::greater<>());
        for (int i = 0; i < args.k; ++i)
            args.ids[q * args.k + i] =
                i < static_cast<int>(mine.found.size()) ? static_cast<std::int32_t>(node_of(mine.found[i])) : -1;
    }
}

inline void graph_nearest(const GraphNearestArgs& args) {
    // Narrower panels where there are few queries, so that every thread has work.
    const std::int64_t widest = std::int64_t{nearest_tiles} * nearest_queries;
    const std::int64_t fair = (args.query_count / args.threads + nearest_queries) / nearest_queries * nearest_queries;
    const std::int64_t panel = std::clamp<std::int64_t>(fair, nearest_queries, widest);
    const std::int64_t panels = (args.query_count + panel - 1) / panel;
    Interruption interruption{args.interrupted};
#pragma omp parallel for schedule(dynamic, 1) num_threads(args.threads) if (args.threads > 1 && panels > 1)
    for (std::int64_t p = 0; p < panels; ++p) {
        if (interruption.stop()) continue;
        nearest_panel(args, p * panel, std::min((p + 1) * panel, args.query_count));
        interruption.poll();
    }
}

}  // namespace longspan::LONGSPAN_ISA
