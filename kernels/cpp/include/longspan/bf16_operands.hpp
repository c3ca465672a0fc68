// Operands of products of bfloat16 matrices: tiles of 16 rows of 64 bytes each.
//
// A right operand holds pairs of rows: row r of a tile has, column by column, elements 2 r and 2 r + 1 of the dimension that
// is summed over.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "longspan/dtype.hpp"

namespace longspan::LONGSPAN_ISA {

inline constexpr int tile_rows = 16;
inline constexpr int tile_pairs = 32;                        // elements of a tile's row in bfloat16
inline constexpr int tile_elements = tile_rows * tile_pairs;  // of a tile in bfloat16, 1 KiB

// Turns a square of 16 x 16 words of 32 bits about its diagonal.
inline void transpose(__m512i (&row)[16]) {
    __m512i half[16];
    for (int i = 0; i < 16; i += 2) {
        half[i] = _mm512_unpacklo_epi32(row[i], row[i + 1]);
        half[i + 1] = _mm512_unpackhi_epi32(row[i], row[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) {
        row[i] = _mm512_unpacklo_epi64(half[i], half[i + 2]);
        row[i + 1] = _mm512_unpackhi_epi64(half[i], half[i + 2]);
        row[i + 2] = _mm512_unpacklo_epi64(half[i + 1], half[i + 3]);
        row[i + 3] = _mm512_unpackhi_epi64(half[i + 1], half[i + 3]);
    }
    // row[4 q + c] now has, in each quarter k of its words, column 4 k + c of the rows 4 q to 4 q + 3
    for (int c = 0; c < 4; ++c) {
        half[c] = _mm512_shuffle_i32x4(row[c], row[4 + c], 0x88);
        half[4 + c] = _mm512_shuffle_i32x4(row[c], row[4 + c], 0xdd);
        half[8 + c] = _mm512_shuffle_i32x4(row[8 + c], row[12 + c], 0x88);
        half[12 + c] = _mm512_shuffle_i32x4(row[8 + c], row[12 + c], 0xdd);
    }
    for (int c = 0; c < 4; ++c) {
        row[c] = _mm512_shuffle_i32x4(half[c], half[8 + c], 0x88);
        row[8 + c] = _mm512_shuffle_i32x4(half[c], half[8 + c], 0xdd);
        row[4 + c] = _mm512_shuffle_i32x4(half[4 + c], half[12 + c], 0x88);
        row[12 + c] = _mm512_shuffle_i32x4(half[4 + c], half[12 + c], 0xdd);
    }
}

// 32 rows of `size` elements, `row_stride` apart, as size / 16 left tiles of their transpose: [size / 16, 16, 32].
inline void transpose_rows(const Bf16* rows, std::int64_t row_stride, int size, Bf16* tiles) {
    for (int d = 0; d < size; d += tile_rows, tiles += tile_elements) {
        __m512i word[16];
        for (int pair = 0; pair < 16; ++pair) {
            const Bf16* at = rows + 2 * pair * row_stride + d;
            const __m512i even = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(at)));
            const __m512i odd = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(at + row_stride)));
            word[pair] = _mm512_or_si512(even, _mm512_slli_epi32(odd, 16));
        }
        transpose(word);
        for (int i = 0; i < 16; ++i) _mm512_storeu_si512(tiles + i * tile_pairs, word[i]);
    }
}

// 32 rows as right operands, to be multiplied with from the left by what has their columns: [size / 32, 2, 16, 32].
inline void pair_columns(const Bf16* rows, std::int64_t row_stride, int size, Bf16* tiles) {
    for (int d = 0; d < size; d += tile_pairs)
        for (int side = 0; side < 2; ++side, tiles += tile_elements) {
            __m512i word[16];
            for (int i = 0; i < 16; ++i) word[i] = _mm512_loadu_si512(rows + (16 * side + i) * row_stride + d);
            transpose(word);
            for (int i = 0; i < 16; ++i) _mm512_storeu_si512(tiles + i * tile_pairs, word[i]);
        }
}

}  // namespace longspan::LONGSPAN_ISA
