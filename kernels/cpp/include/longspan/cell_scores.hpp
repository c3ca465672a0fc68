// What cells of positions give to blocks of cells of entries, by antidiagonals: a cell's rows, the last first, side by side are a
// query, a cell of keys is a key, and the scores of a block come down to their log-sum-exp.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <limits>

#include "longspan/array.hpp"
#include "longspan/cell_scores_args.hpp"
#include "longspan/panel_product.hpp"
#include "longspan/score_args.hpp"
#include "longspan/simd.hpp"

namespace longspan::LONGSPAN_ISA {

// Scores [cells, Width] of a block whose first cell is `first`, with cells of positions from `row` on, become log-sum-exps, args.blocks
// apart.
template <int Width>
inline void give_block(const CellScoresArgs& args, float* score, std::int64_t first, std::int64_t row, int count, float* lse) {
    constexpr float infinity = std::numeric_limits<float>::infinity();
    const bool hides = first + args.cells - 1 > args.last_seen(row);
    alignas(64) std::array<float, Width> top, total, hidden;
    for (int column = 0; column < Width; column += Vec::lanes) {
        Vec most = broadcast(-infinity);
        for (int cell = 0; cell < args.cells; ++cell) {
            float* at = score + cell * Width + column;
            Vec z = load(at) * broadcast(args.scale);
            if (args.softcap != 0.0F) z = broadcast(args.softcap) * tanh(z * broadcast(1.0F / args.softcap));
            if (hides) {
                for (int i = column; i < column + Vec::lanes; ++i)
                    hidden[i] = first + cell > args.last_seen(row + i) ? -infinity : 0.0F;
                z = z + load(&hidden[column]);
            }
            store(at, z);
            most = max(z, most);
        }
        const Vec base = where_greater(most, broadcast(-infinity), most, broadcast(0.0F));
        Vec sum = broadcast(0.0F);
        for (int cell = 0; cell < args.cells; ++cell) sum = sum + exp(load(score + cell * Width + column) - base);
        store(&top[column], most);
        store(&total[column], sum);
    }
    for (int i = 0; i < count; ++i) lse[i * args.blocks] = total[i] == 0.0F ? -infinity : top[i] + std::log(total[i]);
}

// Fills what the cells of positions from `row` on, `count` of them, see nothing of: blocks from `block` on.
inline void give_nothing(const CellScoresArgs& args, std::int64_t head, std::int64_t row, int count, std::int64_t block) {
    float* lse = args.lse + (head * args.rows + row) * args.blocks;
    for (int i = 0; i < count; ++i, lse += args.blocks)
        std::fill(lse + block, lse + args.blocks, -std::numeric_limits<float>::infinity());
}

// Calls use(cell, place in it, position) for what there is of the positions of `count` cells from `row` on; a cell's last comes first.
template <class Use>
inline void each_position(const CellScoresArgs& args, std::int64_t row, int count, Use use) {
    for (int cell = 0; cell < count; ++cell)
        for (int place = 0; place < args.stride; ++place) {
            const std::int64_t position = (row + cell + 1) * args.stride - 1 - place;
            if (position < args.positions) use(cell, place, position);
        }
}

class CellScratch {
   public:
    explicit CellScratch(const CellScoresArgs& args)
        : depth_(static_cast<std::int64_t>(args.stride) * args.head_size),
          q_(static_cast<std::size_t>(depth_) * panel_width),
          rows_(static_cast<std::size_t>(depth_) * panel_width) {}

    // The cells of positions from `row` on, `count` of them.
    void score(const CellScoresArgs& args, std::int64_t head, std::int64_t row, int count) {
        take_queries(args, head, row, count);
        const std::int64_t group = head * args.groups / args.heads;
        const std::int64_t seen = args.last_seen(row + count - 1) / args.cells + 1;
        const int together = panel_width / args.cells;
        for (std::int64_t block = 0; block < seen; block += together) {
            const int some = static_cast<int>(std::min<std::int64_t>(together, seen - block));
            const std::int64_t first = block * args.cells;
            take_keys(args, group, first, some * args.cells);
            panel_product({rows_.data(), depth_, 1}, some * args.cells, q_.data(), depth_, nullptr, score_.data());
            for (int b = 0; b < some; ++b)
                give_block<panel_width>(args, score_.data() + b * args.cells * panel_width, first + b * args.cells, row, count,
                                        args.lse + (head * args.rows + row) * args.blocks + block + b);
        }
        give_nothing(args, head, row, count, seen);
    }

   private:
    // [depth, cell]; zeros where there is no position.
    void take_queries(const CellScoresArgs& args, std::int64_t head, std::int64_t row, int count) {
        std::fill(q_.begin(), q_.end(), 0.0F);
        with_storage(args.q.dtype, [&]<class T>(const T*) {
            const T* base = static_cast<const T*>(args.q.data) + head * args.q.group_stride;
            each_position(args, row, count, [&](int cell, std::int64_t place, std::int64_t position) {
                float* to = q_.data() + place * args.head_size * panel_width + cell;
                for (int d = 0; d < args.head_size; ++d) to[d * panel_width] = to_float(base[position * args.q.row_stride + d]);
            });
        });
    }

    // [cell, depth]; zeros where there is no entry.
    void take_keys(const CellScoresArgs& args, std::int64_t group, std::int64_t first, int count) {
        with_storage(args.keys.dtype, [&]<class T>(const T*) {
            const T* base = static_cast<const T*>(args.keys.data) + group * args.keys.group_stride;
            for (std::int64_t i = 0; i < static_cast<std::int64_t>(count) * args.stride; ++i) {
                const std::int64_t entry = first * args.stride + i;
                float* to = rows_.data() + i * args.head_size;
                if (entry >= args.entries) {
                    std::fill_n(to, args.head_size, 0.0F);
                    continue;
                }
                const T* row = base + entry * args.keys.row_stride;
                for (int d = 0; d < args.head_size; ++d) to[d] = to_float(row[d]);
            }
        });
    }

    std::int64_t depth_;
    Array<float> q_, rows_;
    alignas(64) std::array<float, panel_width * panel_width> score_{};
};

// Calls scratch.score for every head, `most` cells of positions at a time, the last first, which see most.
template <class Scratch>
inline void score_cells(const CellScoresArgs& args, std::int64_t most) {
    const std::int64_t bands = (args.rows + most - 1) / most, items = bands * args.heads;
#pragma omp parallel num_threads(args.threads) if (args.threads > 1 && items > 1)
    {
        Scratch scratch(args);
#pragma omp for schedule(dynamic, 1)
        for (std::int64_t item = 0; item < items; ++item) {
            if (args.interrupt->poll()) continue;
            const std::int64_t row = (bands - 1 - item / args.heads) * most;
            scratch.score(args, item % args.heads, row, static_cast<int>(std::min(most, args.rows - row)));
        }
    }
    args.interrupt->raise();
}

inline void cell_scores(const CellScoresArgs& args) { score_cells<CellScratch>(args, panel_width); }

}  // namespace longspan::LONGSPAN_ISA
