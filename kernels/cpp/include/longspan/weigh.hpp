// Weighted sums of value rows for a few query heads, each row being read once for all heads of a tile.
#pragma once

#include <cstdint>

#include "longspan/dots.hpp"

namespace longspan::LONGSPAN_ISA {

// to[r, d ..] = to[r, d ..] * decay[r] + sum over t of weight[r, t] rows[t][d ..], for Heads heads and Width vectors.
template <int Heads, int Width, class T>
inline void weigh_tile(const float* weight, std::int64_t weight_stride, const float* decay, const T* const* rows,
                       std::int64_t count, std::int64_t known, int d, int head_size, float* to) {
    const int stride = query_stride(head_size);
    Vec total[Heads][Width];
#pragma GCC unroll 8
    for (int r = 0; r < Heads; ++r)
#pragma GCC unroll 8
        for (int c = 0; c < Width; ++c)
            total[r][c] = load(to + r * stride + d + c * Vec::lanes) * broadcast(decay[r]);
    const std::int64_t ahead = rows_ahead<T>(head_size);
    for (std::int64_t t = 0; t < count; ++t) {
        if (t + ahead < known) prefetch_row(rows[t + ahead], head_size);
        Vec row[Width];
#pragma GCC unroll 8
        for (int c = 0; c < Width; ++c) row[c] = load_tail(rows[t], d + c * Vec::lanes, head_size);
#pragma GCC unroll 8
        for (int r = 0; r < Heads; ++r) {
            const Vec share = broadcast(weight[r * weight_stride + t]);
#pragma GCC unroll 8
            for (int c = 0; c < Width; ++c) total[r][c] = fma(share, row[c], total[r][c]);
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < Heads; ++r)
#pragma GCC unroll 8
        for (int c = 0; c < Width; ++c) store(to + r * stride + d + c * Vec::lanes, total[r][c]);
}

// The same over the whole head size; `to` is [Heads, query_stride(head_size)]. rows[count .. known) will be wanted next.
template <int Heads, class T>
inline void weigh_rows(const float* weight, std::int64_t weight_stride, const float* decay, const T* const* rows,
                       std::int64_t count, std::int64_t known, int head_size, float* to) {
    constexpr int Width = Vec::lanes == 16 ? 4 : 2;  // vectors that fit the registers beside four heads
    int d = 0;
    for (; d + Width * Vec::lanes <= head_size; d += Width * Vec::lanes)
        weigh_tile<Heads, Width>(weight, weight_stride, decay, rows, count, d == 0 ? known : 0, d, head_size, to);
    for (; d < head_size; d += Vec::lanes)
        weigh_tile<Heads, 1>(weight, weight_stride, decay, rows, count, d == 0 ? known : 0, d, head_size, to);
}

}  // namespace longspan::LONGSPAN_ISA
