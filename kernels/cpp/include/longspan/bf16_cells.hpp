// Scores of cells in bfloat16, by matrix units or by pairs in vectors: 32 cells of entries, read where they lie, with 32 cells of
// positions at a time.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

#include "longspan/array.hpp"
#include "longspan/bf16_products.hpp"
#include "longspan/cell_scores.hpp"

namespace longspan::LONGSPAN_ISA {

inline constexpr int band_cells = 128;  // whose queries stay in the second cache

class Bf16CellScratch {
   public:
    explicit Bf16CellScratch(const CellScoresArgs& args)
        : depth_(static_cast<std::int64_t>(args.stride) * args.head_size),
          q_(static_cast<std::size_t>(depth_) * band_cells),
          rows_(static_cast<std::size_t>(depth_) * product_rows) {}

    // As CellScratch.
    void score(const CellScoresArgs& args, std::int64_t head, std::int64_t row, int count) {
        take_queries(args, head, row, count);
        const std::int64_t group = head * args.groups / args.heads;
        const std::int64_t seen = args.last_seen(row + count - 1) / args.cells + 1;
        const int together = product_rows / args.cells;
        for (std::int64_t block = 0; block < seen; block += together) {
            const int some = static_cast<int>(std::min<std::int64_t>(together, seen - block));
            const RowsOf keys = take_keys(args, group, block * args.cells);
            for (int at = 0; at < count; at += product_columns) {
                multiply(args, keys, at);
                for (int b = 0; b < some; ++b)
                    give_block<product_columns>(args, score_.data() + b * args.cells * product_columns, (block + b) * args.cells,
                                                row + at, std::min(product_columns, count - at),
                                                args.lse + (head * args.rows + row + at) * args.blocks + block + b);
            }
        }
        give_nothing(args, head, row, count, seen);
    }

   private:
    struct RowsOf {
        const Bf16* first;
        std::int64_t row_stride;
    };

    // Right operands, strip by strip; zeros where there is no position.
    void take_queries(const CellScoresArgs& args, std::int64_t head, std::int64_t row, int count) {
        const Bf16* base = static_cast<const Bf16*>(args.q.data) + head * args.q.group_stride;
        for (int at = 0; at < count; at += product_columns) {
            std::fill(rows_.begin(), rows_.end(), Bf16{0});
            const int some = std::min(product_columns, count - at);
            each_position(args, row + at, some, [&](std::int64_t cell, std::int64_t place, std::int64_t position) {
                std::copy_n(base + position * args.q.row_stride, args.head_size, rows_.data() + cell * depth_ + place * args.head_size);
            });
            pair_columns(rows_.data(), depth_, static_cast<int>(depth_), q_.data() + at * depth_);
        }
    }

    // The entries of 32 cells, where they lie or, where they end within, copied, with zeros behind them.
    RowsOf take_keys(const CellScoresArgs& args, std::int64_t group, std::int64_t cell) {
        const std::int64_t first = cell * args.stride, left = args.entries - first;
        const Bf16* base = static_cast<const Bf16*>(args.keys.data) + group * args.keys.group_stride + first * args.keys.row_stride;
        if (left >= product_rows * args.stride) return {base, args.keys.row_stride};
        std::fill(rows_.begin(), rows_.end(), Bf16{0});
        for (std::int64_t i = 0; i < left; ++i)
            std::copy_n(base + i * args.keys.row_stride, args.head_size, rows_.data() + i * args.head_size);
        return {rows_.data(), args.head_size};
    }

    // score_ [32 cells of entries, 32 cells of positions from `at` on].
    void multiply(const CellScoresArgs& args, const RowsOf& keys, int at) {
        const int a_row = args.head_size / tile_pairs;
        const std::int64_t between = args.stride * keys.row_stride;
        const auto left = [&](int k) {
            return LeftTiles{keys.first + k / a_row * keys.row_stride + k % a_row * tile_pairs, between, tile_rows * between};
        };
        const auto right = [&](int k) { return q_.data() + at * depth_ + static_cast<std::int64_t>(k) * tile_pairs * product_columns; };
        sum_products(score_.data(), true, args.stride * a_row, left, right);
    }

    std::int64_t depth_;
    Array<Bf16> q_, rows_;
    [[no_unique_address]] TileState tiles_;
    alignas(64) std::array<float, product_rows * product_columns> score_{};
};

inline bool bf16_serves(const CellScoresArgs& args) {
    return args.q.dtype == Dtype::bf16 && args.keys.dtype == Dtype::bf16 && args.head_size % tile_pairs == 0;
}

inline void bf16_cell_scores(const CellScoresArgs& args) { score_cells<Bf16CellScratch>(args, band_cells); }

}  // namespace longspan::LONGSPAN_ISA
