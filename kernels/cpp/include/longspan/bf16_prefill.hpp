// Prefill attention to chosen blocks and columns of entries, in bfloat16, by matrix units or by pairs in vectors.
//
// A band is up to 256 positions of one query head; what it sees is cut into units of 32 entries. A step takes 32 units, which
// stay in the second cache while strips of 32 positions go over them, one by one: scores [entry, position] = keys times
// queries, online softmax down the columns, weights rounded to bfloat16. Every few units the weighted values [head size,
// position] += transposed values times weights. Keys are read where they lie, values are transposed once a call; entries chosen
// one by one are copied together.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <vector>

#include "longspan/array.hpp"
#include "longspan/bf16_products.hpp"
#include "longspan/bf16_softmax.hpp"
#include "longspan/bf16_units.hpp"
#include "longspan/block_sparse_prefill_args.hpp"
#include "longspan/prefill_tiles.hpp"
#include "longspan/simd.hpp"

namespace longspan::LONGSPAN_ISA {

inline constexpr std::int64_t most_transposed = std::int64_t{1} << 29;  // bytes of values held transposed, or one group's

class BandScratch {
   public:
    explicit BandScratch(int head_size)
        : size_(head_size),
          q_(static_cast<std::size_t>(head_size) * band_positions),
          row_q_(static_cast<std::size_t>(head_size) * strip_positions),
          units_(head_size),
          softmax_(head_size) {}

    // `values`: the group's, transposed, for as many units as lie whole in the entries.
    void attend(const BlockSparseArgs& args, const PrefillTile& band, const Bf16* values) {
        const std::int64_t group = band.head * args.groups / args.heads;
        take_queries(args, band);
        units_.list(args, band);
        softmax_.clear();
        for (std::int64_t begin = 0; begin < units_.size(); begin += step_units) {
            const int count = static_cast<int>(std::min<std::int64_t>(step_units, units_.size() - begin));
            const Unit* units = units_.locate(args, group, values, begin, count);
            for (int at = 0; at < band.count; at += strip_positions) {
                for (int u = 0; u < count; ++u) advance(args, at, band.limit + at, units[u]);
                softmax_.add_values(at);
            }
        }
        const float scale = args.softcap != 0.0F ? 1.0F : args.scale;
        for (int i = 0; i < band.count; ++i) {
            const std::int64_t row = band.head * args.positions + band.first + i;
            args.lse[row] = softmax_.give(i, scale, args.out + row * size_);
        }
    }

   private:
    // The queries as right operands, strip by strip; zeros beyond the band's positions.
    void take_queries(const BlockSparseArgs& args, const PrefillTile& band) {
        const Bf16* rows = static_cast<const Bf16*>(args.q.data) + band.head * args.q.group_stride + band.first * args.q.row_stride;
        for (int at = 0; at < band.count; at += strip_positions) {
            const int count = std::min(strip_positions, band.count - at);
            Bf16* to = q_.data() + static_cast<std::size_t>(at) * size_;
            if (count == strip_positions) {
                pair_columns(rows + at * args.q.row_stride, args.q.row_stride, size_, to);
                continue;
            }
            std::fill(row_q_.begin(), row_q_.end(), Bf16{0});
            for (int i = 0; i < count; ++i)
                std::copy_n(rows + (at + i) * args.q.row_stride, size_, row_q_.data() + static_cast<std::size_t>(i) * size_);
            pair_columns(row_q_.data(), size_, size_, to);
        }
    }

    // The strip from position `at` on, whose first position sees entries up to `limit`, takes in a unit.
    void advance(const BlockSparseArgs& args, int at, std::int64_t limit, const Unit& unit) {
        constexpr float log2e = 1.44269504F;
        if (!unit.ids && unit.first > limit + strip_positions - 1) return;
        const Bf16* q = q_.data() + static_cast<std::size_t>(at) * size_;
        const auto keys = [&](int k) {
            return LeftTiles{unit.keys + k * tile_pairs, unit.row_stride, tile_rows * unit.row_stride};
        };
        const auto queries = [&](int k) { return q + k * tile_pairs * strip_positions; };
        sum_products(score_.data(), true, size_ / tile_pairs, keys, queries);
        if (args.softcap != 0.0F) cap(args, score_.data());
        hide(unit, limit, score_.data());
        softmax_.absorb(at, score_.data(), args.softcap != 0.0F ? log2e : args.scale * log2e, unit);
    }

    static void cap(const BlockSparseArgs& args, float* score) {
        const Vec to = broadcast(args.softcap), by = broadcast(args.scale / args.softcap);
        for (int i = 0; i < unit_entries * strip_positions; i += Vec::lanes)
            store(score + i, to * tanh(load(score + i) * by));
    }

    // Minus infinity for what a position does not see, and for rows that hold no entry.
    static void hide(const Unit& unit, std::int64_t limit, float* score) {
        const bool near = unit.ids || unit.first + unit_entries - 1 > limit || unit.count < unit_entries;
        for (int row = 0; near && row < unit_entries; ++row) {
            const std::int64_t ahead = row < unit.count ? unit.entry(row) - limit : strip_positions;
            if (ahead <= 0) continue;
            const Vec bound = broadcast(static_cast<float>(std::min<std::int64_t>(ahead, strip_positions)));
            for (int column = 0; column < strip_positions; column += Vec::lanes) {
                float* at = score + row * strip_positions + column;
                store(at, where_greater(bound, load(numbers() + column), broadcast(-infinity), load(at)));
            }
        }
    }

    static const float* numbers() {
        alignas(64) static const auto kept = [] {
            std::array<float, strip_positions> result{};
            for (int i = 0; i < strip_positions; ++i) result[i] = static_cast<float>(i);
            return result;
        }();
        return kept.data();
    }

    int size_;
    Array<Bf16> q_, row_q_;
    BandUnits units_;
    BandSoftmax softmax_;
    alignas(64) std::array<float, unit_entries * strip_positions> score_{};
};

inline bool bf16_serves(const BlockSparseArgs& args) {
    const bool plain = args.q.dtype == Dtype::bf16 && args.keys.dtype == Dtype::bf16 && args.values.dtype == Dtype::bf16;
    return plain && args.head_size % tile_pairs == 0 && args.scale > 0.0F;
}

inline void bf16_prefill(const BlockSparseArgs& args) {
    const std::int64_t units = args.entries / unit_entries;
    const std::int64_t unit_size = static_cast<std::int64_t>(unit_entries) * args.head_size;
    const std::int64_t fit = most_transposed / std::max<std::int64_t>(1, units * unit_size * 2);
    const std::int64_t together = std::clamp<std::int64_t>(fit, 1, args.groups);
    Array<Bf16> values(static_cast<std::size_t>(together * units * unit_size));
    for (std::int64_t begin = 0; begin < args.groups && !args.interrupt->stopped(); begin += together) {
        const std::int64_t end = std::min<std::int64_t>(begin + together, args.groups);
        const std::vector<PrefillTile> work = prefill_tiles(args, band_positions, begin, end);
        const auto items = static_cast<std::int64_t>(work.size());
#pragma omp parallel num_threads(args.threads) if (args.threads > 1 && items > 1)
        {
#pragma omp for schedule(static)
            for (std::int64_t at = 0; at < (end - begin) * units; ++at) {
                const std::int64_t group = begin + at / units, unit = at % units;
                const Bf16* rows = static_cast<const Bf16*>(args.values.data) + group * args.values.group_stride;
                transpose_rows(rows + unit * unit_entries * args.values.row_stride, args.values.row_stride, args.head_size,
                               values.data() + at * unit_size);
            }
            const TileState tiles;
            BandScratch scratch(args.head_size);
#pragma omp for schedule(dynamic, 1)
            for (std::int64_t item = 0; item < items; ++item) {
                if (args.interrupt->poll()) continue;
                const std::int64_t group = work[item].head * args.groups / args.heads;
                scratch.attend(args, work[item], values.data() + (group - begin) * units * unit_size);
            }
        }
    }
    args.interrupt->raise();
}

}  // namespace longspan::LONGSPAN_ISA
