// Products of bfloat16 matrices, 32 x 32 sums in float32 at a time: by AMX tiles, or by pairs in vectors (VDPBF16PS).
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "longspan/bf16_operands.hpp"
#include "longspan/dtype.hpp"

namespace longspan::LONGSPAN_ISA {

inline constexpr int product_rows = 2 * tile_rows;
inline constexpr int product_columns = 32;

// Two tiles of rows, one below the other, and what lies further along the summed dimension.
struct LeftTiles {
    const Bf16* first;
    std::int64_t row_stride;  // elements between rows
    std::int64_t below;       // elements from the upper tile to the lower one
};

#if defined(__AMX_BF16__)

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

// sum [32 rows, 32 columns], of which nothing counts where it is `fresh`, with the products of left(k) and the two tiles at
// right(k) added, k < count.
template <class Left, class Right>
inline void sum_products(float* sum, bool fresh, int count, Left left, Right right) {
    if (fresh) clear_sums();
    else load_sums(sum);
    for (int k = 0; k < count; ++k) add_product(left(k), right(k));
    store_sums(sum);
}

#else

// Vectors need no state of their own.
struct TileState {
    TileState() {}
};

// Rows whose sums fit the registers beside what they are made of.
inline constexpr int summed_rows = 8;

// As with AMX.
template <class Left, class Right>
inline void sum_products(float* sum, bool fresh, int count, Left left, Right right) {
    for (int row = 0; row < product_rows; row += summed_rows, sum += summed_rows * product_columns) {
        __m512 total[summed_rows][2];
#pragma GCC unroll 8
        for (int r = 0; r < summed_rows; ++r)
            for (int c = 0; c < 2; ++c)
                total[r][c] = fresh ? _mm512_setzero_ps() : _mm512_loadu_ps(sum + r * product_columns + 16 * c);
        for (int k = 0; k < count; ++k) {
            const LeftTiles tiles = left(k);
            const Bf16* rows = tiles.first + row / tile_rows * tiles.below + row % tile_rows * tiles.row_stride;
            const Bf16* columns = right(k);
            for (int pair = 0; pair < tile_rows; ++pair, rows += 2, columns += tile_pairs) {
                const auto near = reinterpret_cast<__m512bh>(_mm512_loadu_si512(columns));
                const auto far = reinterpret_cast<__m512bh>(_mm512_loadu_si512(columns + tile_elements));
#pragma GCC unroll 8
                for (int r = 0; r < summed_rows; ++r) {
                    std::int32_t both;
                    std::memcpy(&both, rows + r * tiles.row_stride, sizeof both);
                    const auto factor = reinterpret_cast<__m512bh>(_mm512_set1_epi32(both));
                    total[r][0] = _mm512_dpbf16_ps(total[r][0], factor, near);
                    total[r][1] = _mm512_dpbf16_ps(total[r][1], factor, far);
                }
            }
        }
#pragma GCC unroll 8
        for (int r = 0; r < summed_rows; ++r)
            for (int c = 0; c < 2; ++c) _mm512_storeu_ps(sum + r * product_columns + 16 * c, total[r][c]);
    }
}

#endif

}  // namespace longspan::LONGSPAN_ISA
