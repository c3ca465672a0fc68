// Products of bfloat16 matrices by AMX tiles: 16 rows of 64 bytes each, sums in float32.
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

// Tile loads of GCC do not tell the compiler that they read memory: what was written before has to be there.
inline void settle() { asm volatile("" ::: "memory"); }

// Gives the calling thread tiles of full size for as long as it lives.
class TileState {
   public:
    TileState() {
        struct alignas(64) {
            std::uint8_t palette = 1, start = 0, unused[14] = {};
            std::uint16_t bytes[16] = {};
            std::uint8_t rows[16] = {};
        } shape;
        for (int tile = 0; tile < 8; ++tile) shape.bytes[tile] = 64, shape.rows[tile] = tile_rows;
        settle();
        _tile_loadconfig(&shape);
    }
    ~TileState() { _tile_release(); }
    TileState(const TileState&) = delete;
    TileState& operator=(const TileState&) = delete;
};

// Two tiles of rows, one below the other, and what lies further along the summed dimension.
struct LeftTiles {
    const Bf16* first;
    std::int64_t row_stride;  // elements between rows
    std::int64_t below;       // elements from the upper tile to the lower one
};

// sum [32 rows, 32 columns] in tiles 0 to 3, with `left` times the two tiles at `right` added.
inline void add_product(const LeftTiles& left, const Bf16* right) {
    _tile_loadd(4, left.first, left.row_stride * 2);
    _tile_loadd(6, right, 64);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(7, right + tile_elements, 64);
    _tile_dpbf16ps(1, 4, 7);
    _tile_loadd(5, left.first + left.below, left.row_stride * 2);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
}

inline void clear_sums() {
    settle();
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
}

// Rows of 32 floats that lie side by side.
inline void load_sums(const float* from) {
    settle();
    _tile_loadd(0, from, 128);
    _tile_loadd(1, from + 16, 128);
    _tile_loadd(2, from + 16 * 32, 128);
    _tile_loadd(3, from + 16 * 32 + 16, 128);
}
inline void store_sums(float* to) {
    _tile_stored(0, to, 128);
    _tile_stored(1, to + 16, 128);
    _tile_stored(2, to + 16 * 32, 128);
    _tile_stored(3, to + 16 * 32 + 16, 128);
}

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
