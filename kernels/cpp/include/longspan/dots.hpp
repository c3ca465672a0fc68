// Inner products of a few queries with many rows, each row being read once for all queries of a tile.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <vector>

#include "longspan/score_args.hpp"
#include "longspan/simd.hpp"

namespace longspan::LONGSPAN_ISA {

inline constexpr std::int64_t prefetch_bytes = 8192;
inline constexpr std::int64_t most_ahead = 64;
inline constexpr int pair_width = 2 * Vec::lanes;

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

// out[r * out_stride + t] = the sum of the lanes of a pair's accumulator.
template <int Queries>
inline void store_products(const Vec (&tile)[Vec::lanes], float* out, std::int64_t out_stride) {
    constexpr int Rows = rows_a_tile<Queries>;
    float product[Vec::lanes];
    store(product, sums(tile));
    for (int r = 0; r < Queries; ++r)
        for (int t = 0; t < Rows; ++t) out[r * out_stride + t] = product[r * Rows + t];
}

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
    store_products<Queries>(tile, out, out_stride);
}

#if defined(LONGSPAN_PAIRS)
// The same for queries in bfloat16, `stride` apart: products are taken in pairs, and rows need no widening.
template <int Queries>
inline void dot_pairs(const Bf16* q, int stride, const Bf16* const* rows, int head_size, float* out, std::int64_t out_stride) {
    constexpr int Rows = rows_a_tile<Queries>;
    Vec tile[Vec::lanes];
    for (Vec& product : tile) product = broadcast(0.0F);
    for (int d = 0; d < head_size; d += pair_width) {
        Pairs query[Queries];
#pragma GCC unroll 16
        for (int r = 0; r < Queries; ++r) query[r] = load_pairs(q + r * stride + d, pair_width);
#pragma GCC unroll 16
        for (int t = 0; t < Rows; ++t) {
            const Pairs row = load_pairs(rows[t] + d, head_size - d);
#pragma GCC unroll 16
            for (int r = 0; r < Queries; ++r) tile[r * Rows + t] = fma(query[r], row, tile[r * Rows + t]);
        }
    }
    store_products<Queries>(tile, out, out_stride);
}
#endif

// Calls tile(rows, out, out_stride) for any number of rows. The last rows of an incomplete tile are computed again rather
// than read beyond. rows[count .. known) are those that will be wanted next: they are prefetched.
template <int Queries, class T, class Tile>
inline void each_tile(const T* const* rows, std::int64_t count, std::int64_t known, int head_size, float* out,
                      std::int64_t out_stride, Tile&& tile) {
    constexpr int Rows = rows_a_tile<Queries>;
    const std::int64_t ahead = rows_ahead<T>(head_size);
    std::int64_t t = 0;
    for (; t + Rows <= count; t += Rows) {
        for (std::int64_t i = t + ahead; i < std::min(t + ahead + Rows, known); ++i) prefetch_row(rows[i], head_size);
        tile(rows + t, out + t, out_stride);
    }
    if (t == count) return;
    const T* rest[Rows];
    float product[Vec::lanes];
    for (int i = 0; i < Rows; ++i) rest[i] = rows[t + i < count ? t + i : count - 1];
    tile(rest, product, static_cast<std::int64_t>(Rows));
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

// Some queries, also in bfloat16 where that holds them exactly (those of a model in bfloat16) and is faster. Take them once
// for many rows: what was just written is slow to load in other widths.
class Queries {
 public:
    // q: float32, query_stride(head_size) apart; stays where it is.
    void take(const float* q, int count, int head_size) {
        q_ = q, count_ = count, head_size_ = head_size;
#if defined(LONGSPAN_PAIRS)
        std::uint32_t lost = 0;
        pairs_.assign(static_cast<std::size_t>(count) * pair_stride(), Bf16{});
        for (int r = 0; r < count; ++r)
            for (int d = 0; d < head_size; ++d) {
                const auto bits = std::bit_cast<std::uint32_t>(q[r * query_stride(head_size) + d]);
                lost |= bits & 0xffffU;
                pairs_[r * pair_stride() + d] = {static_cast<std::uint16_t>(bits >> 16)};
            }
        exact_ = lost == 0;
#endif
    }

    // out[r * out_stride + t] = q[r] . rows[t] for all of them and t < count. rows[count .. known) will be wanted next.
    template <class T>
    void dot(const T* const* rows, std::int64_t count, std::int64_t known, float* out, std::int64_t out_stride) const {
        for_query_tiles(count_, [&](int r, auto tile) {
            each_tile<tile()>(rows, count, r == 0 ? known : 0, head_size_, out + r * out_stride, out_stride,
                              [&](const T* const* some, float* to, std::int64_t stride) {
#if defined(LONGSPAN_PAIRS)
                                  if constexpr (std::is_same_v<T, Bf16>)
                                      if (exact_) return dot_pairs<tile()>(&pairs_[r * pair_stride()], pair_stride(), some, head_size_, to, stride);
#endif
                                  dot_tile<tile()>(q_ + r * query_stride(head_size_), some, head_size_, to, stride);
                              });
        });
    }

 private:
    int pair_stride() const { return (head_size_ + pair_width - 1) / pair_width * pair_width; }

    const float* q_ = nullptr;
    int count_ = 0;
    int head_size_ = 0;
    std::vector<Bf16> pairs_;
    bool exact_ = false;
};

}  // namespace longspan::LONGSPAN_ISA
