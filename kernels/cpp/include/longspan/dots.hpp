// Inner products of a few queries with many rows, each row being read once for all queries of a tile.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "longspan/score_args.hpp"
#include "longspan/simd.hpp"

namespace longspan::LONGSPAN_ISA {

inline constexpr std::int64_t prefetch_bytes = 8192;
inline constexpr std::int64_t most_ahead = 64;

template <class T>
inline void prefetch_row(const T* row, int head_size) {
    const char* bytes = reinterpret_cast<const char*>(row);
    for (std::size_t line = 0; line < head_size * sizeof(T); line += 64) prefetch(bytes + line);
}

// How many rows ahead of the one in use to prefetch: some kilobytes, so that a fetch that crosses a page is done in
// time. In small steps between the arithmetic; of a long burst of prefetches, most are dropped.
template <class T>
inline std::int64_t rows_ahead(int head_size) {
    return std::clamp<std::int64_t>(prefetch_bytes / (head_size * static_cast<std::int64_t>(sizeof(T))), 4, most_ahead);
}

// Rows that a tile of `Queries` queries takes at once: one accumulator a pair, all of them reduced together.
template <int Queries>
inline constexpr int rows_a_tile = Vec::lanes / Queries;

// out[r * out_stride + t] = q[r] . rows[t] for r < Queries, t < rows_a_tile; q is float32, query_stride(head_size) apart.
template <int Queries, class T>
inline void dot_tile(const float* q, const T* const* rows, int head_size, float* out, std::int64_t out_stride) {
    constexpr int Rows = rows_a_tile<Queries>;
    const int stride = query_stride(head_size);
    Vec tile[Vec::lanes];
    for (Vec& product : tile) product = broadcast(0.0F);
    for (int d = 0; d < head_size; d += Vec::lanes) {
        Vec query[Queries];
#pragma GCC unroll 16
        for (int r = 0; r < Queries; ++r) query[r] = load(q + r * stride + d);
#pragma GCC unroll 16
        for (int t = 0; t < Rows; ++t) {
            const Vec row = load_tail(rows[t], d, head_size);
#pragma GCC unroll 16
            for (int r = 0; r < Queries; ++r) tile[r * Rows + t] = fma(query[r], row, tile[r * Rows + t]);
        }
    }
    float product[Vec::lanes];
    store(product, sums(tile));
    for (int r = 0; r < Queries; ++r)
        for (int t = 0; t < Rows; ++t) out[r * out_stride + t] = product[r * Rows + t];
}

// The same for any number of rows. The last rows of an incomplete tile are computed again rather than read beyond.
// rows[count .. known) are those that will be wanted next: they are prefetched.
template <int Queries, class T>
inline void dot_rows(const float* q, const T* const* rows, std::int64_t count, std::int64_t known, int head_size,
                     float* out, std::int64_t out_stride) {
    constexpr int Rows = rows_a_tile<Queries>;
    const std::int64_t ahead = rows_ahead<T>(head_size);
    std::int64_t t = 0;
    for (; t + Rows <= count; t += Rows) {
        for (std::int64_t i = t + ahead; i < std::min(t + ahead + Rows, known); ++i) prefetch_row(rows[i], head_size);
        dot_tile<Queries>(q, rows + t, head_size, out + t, out_stride);
    }
    if (t == count) return;
    const T* rest[Rows];
    float product[Vec::lanes];
    for (int i = 0; i < Rows; ++i) rest[i] = rows[t + i < count ? t + i : count - 1];
    dot_tile<Queries>(q, rest, head_size, product, Rows);
    for (int r = 0; r < Queries; ++r)
        for (std::int64_t i = 0; t + i < count; ++i) out[r * out_stride + t + i] = product[r * Rows + i];
}

// Cuts any number of queries into tiles of 4, 2 and 1 and calls body(first query, integral_constant<int, tile>).
template <class Body>
inline void for_query_tiles(int queries, Body&& body) {
    int r = 0;
    for (; r + 4 <= queries; r += 4) body(r, std::integral_constant<int, 4>{});
    if (r + 2 <= queries) {
        body(r, std::integral_constant<int, 2>{});
        r += 2;
    }
    if (r < queries) body(r, std::integral_constant<int, 1>{});
}

}  // namespace longspan::LONGSPAN_ISA
