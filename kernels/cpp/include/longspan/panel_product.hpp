// The matrix product of prefill attention: queries lie side by side in the lanes, so that neither keys nor values are
// ever transposed and a softmax over entries needs no sum across lanes.
#pragma once

#include <cstdint>
#include <utility>

#include "longspan/simd.hpp"

namespace longspan::LONGSPAN_ISA {

inline constexpr int panel_width = 64;  // queries of a tile
// Vectors and rows whose products fit the registers beside what they are made of.
inline constexpr int panel_vectors = Vec::lanes == 16 ? 4 : 2;
inline constexpr int panel_rows = 6;

// A matrix whose element (row, k) is at data[row * row_stride + k * step].
struct Factor {
    const float* data;
    std::int64_t row_stride;
    std::int64_t step;
};

// to[r, i] = to[r, i] * decay[i] + sum over k < depth of a(r, k) b[k, i], for Rows rows and the vectors at `column`; without
// `decay` what was there before does not count. Rows of `to` and `b` are panel_width apart.
template <int Rows>
inline void panel_tile(Factor a, const float* b, std::int64_t depth, const float* decay, int column, float* to) {
    Vec total[Rows][panel_vectors];
#pragma GCC unroll 8
    for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 8
        for (int c = 0; c < panel_vectors; ++c) {
            const int at = column + c * Vec::lanes;
            total[r][c] = decay ? load(to + r * panel_width + at) * load(decay + at) : broadcast(0.0F);
        }
    for (std::int64_t k = 0; k < depth; ++k) {
        Vec row[panel_vectors];
#pragma GCC unroll 8
        for (int c = 0; c < panel_vectors; ++c) row[c] = load(b + k * panel_width + column + c * Vec::lanes);
#pragma GCC unroll 8
        for (int r = 0; r < Rows; ++r) {
            const Vec factor = broadcast(a.data[r * a.row_stride + k * a.step]);
#pragma GCC unroll 8
            for (int c = 0; c < panel_vectors; ++c) total[r][c] = fma(factor, row[c], total[r][c]);
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 8
        for (int c = 0; c < panel_vectors; ++c)
            store(to + r * panel_width + column + c * Vec::lanes, total[r][c]);
}

template <int Rows = panel_rows - 1>
inline void panel_rest(int rows, Factor a, const float* b, std::int64_t depth, const float* decay, int column, float* to) {
    if (rows == Rows) panel_tile<Rows>(a, b, depth, decay, column, to);
    else if constexpr (Rows > 1) panel_rest<Rows - 1>(rows, a, b, depth, decay, column, to);
}

// The same for any number of rows and all columns.
inline void panel_product(Factor a, std::int64_t rows, const float* b, std::int64_t depth, const float* decay, float* to) {
    for (int column = 0; column < panel_width; column += panel_vectors * Vec::lanes) {
        Factor at = a;
        float* result = to;
        std::int64_t r = 0;
        for (; r + panel_rows <= rows; r += panel_rows) {
            panel_tile<panel_rows>(at, b, depth, decay, column, result);
            at.data += panel_rows * a.row_stride;
            result += panel_rows * panel_width;
        }
        panel_rest(static_cast<int>(rows - r), at, b, depth, decay, column, result);
    }
}

}  // namespace longspan::LONGSPAN_ISA
