// Prefill attention to chosen blocks and columns of entries.
//
// A tile of up to 64 positions of one query head is one piece of work. Its entries are listed, blocks first, and taken 64 at
// a time: scores [entry, position], online softmax down the columns, weighted values [head size, position].
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "longspan/block_sparse_prefill_args.hpp"
#include "longspan/panel_product.hpp"
#include "longspan/prefill_tiles.hpp"
#include "longspan/score_args.hpp"

namespace longspan::LONGSPAN_ISA {

class PrefillScratch {
   public:
    explicit PrefillScratch(int head_size)
        : head_size_(head_size),
          stride_(query_stride(head_size)),
          q_(static_cast<std::size_t>(stride_) * panel_width),
          rows_(static_cast<std::size_t>(stride_) * panel_width),
          score_(panel_width * panel_width),
          sum_(static_cast<std::size_t>(stride_) * panel_width) {}

    void attend(const BlockSparseArgs& args, const PrefillTile& tile) {
        take_queries(args, tile);
        list_entries(args, tile);
        std::fill(sum_.begin(), sum_.end(), 0.0F);
        std::fill_n(top_, panel_width, -infinity);
        std::fill_n(total_, panel_width, 0.0F);
        const std::int64_t group = tile.head * args.groups / args.heads;
        const auto total = static_cast<std::int64_t>(entries_.size());
        for (std::int64_t begin = 0; begin < total; begin += panel_width) {
            const std::int32_t* entries = entries_.data() + begin;
            const int count = static_cast<int>(std::min<std::int64_t>(panel_width, total - begin));
            take_rows(args.keys, group, entries, count);
            panel_product({rows_.data(), stride_, 1}, count, q_.data(), head_size_, nullptr, score_.data());
            weigh(args, tile, entries, count);
            take_rows(args.values, group, entries, count);
            panel_product({rows_.data(), 1, stride_}, head_size_, score_.data(), count, decay_, sum_.data());
        }
        give(args, tile);
    }

   private:
    static constexpr float infinity = std::numeric_limits<float>::infinity();

    // The queries of the tile, [head size, position]; zeros beyond its positions.
    void take_queries(const BlockSparseArgs& args, const PrefillTile& tile) {
        std::fill(q_.begin(), q_.end(), 0.0F);
        with_storage(args.q.dtype, [&]<class T>(const T*) {
            const T* row = static_cast<const T*>(args.q.data) + tile.head * args.q.group_stride + tile.first * args.q.row_stride;
            for (int i = 0; i < tile.count; ++i, row += args.q.row_stride)
                for (int d = 0; d < head_size_; ++d) q_[static_cast<std::size_t>(d) * panel_width + i] = to_float(row[d]);
        });
    }

    void list_entries(const BlockSparseArgs& args, const PrefillTile& tile) {
        entries_.clear();
        const std::int64_t stop = std::min(args.entries, tile.limit + tile.count);
        const std::int64_t width = (args.entries + args.block - 1) / args.block;
        const std::int64_t height = (args.positions + args.block - 1) / args.block;
        const bool* row = args.blocks ? args.blocks + (tile.head * height + tile.block) * width : nullptr;
        const auto chosen = [&](std::int64_t y) { return !row || row[y]; };
        const bool* columns = args.columns ? args.columns + tile.head * args.entries : nullptr;
        for (std::int64_t y = 0; y * args.block < stop; ++y) {
            const std::int64_t end = std::min((y + 1) * args.block, stop);
            for (std::int64_t t = y * args.block; chosen(y) && t < end; ++t) entries_.push_back(static_cast<std::int32_t>(t));
        }
        for (std::int64_t y = 0; columns && y * args.block < stop; ++y) {
            const std::int64_t end = std::min((y + 1) * args.block, stop);
            for (std::int64_t t = y * args.block; !chosen(y) && t < end; ++t)
                if (columns[t]) entries_.push_back(static_cast<std::int32_t>(t));
        }
    }

    // The rows of these entries in float32, stride_ apart.
    void take_rows(const RowsView& view, std::int64_t group, const std::int32_t* entries, int count) {
        with_storage(view.dtype, [&]<class T>(const T*) {
            const T* base = static_cast<const T*>(view.data) + group * view.group_stride;
            for (int t = 0; t < count; ++t) {
                const T* row = base + entries[t] * view.row_stride;
                for (int d = 0; d < head_size_; d += Vec::lanes) store(&rows_[t * stride_ + d], load_tail(row, d, head_size_));
            }
        });
    }

    // Turns scores into weights, column by column, and says by how much what was summed before decays.
    void weigh(const BlockSparseArgs& args, const PrefillTile& tile, const std::int32_t* entries, int count) {
        const bool masked = *std::max_element(entries, entries + count) > tile.limit;
        for (int column = 0; column < panel_width; column += Vec::lanes) {
            const Vec position = load(numbers() + column);
            Vec top = load(top_ + column);
            for (int t = 0; t < count; ++t) {
                float* at = &score_[t * panel_width + column];
                Vec s = load(at) * broadcast(args.scale);
                if (args.softcap != 0.0F) s = broadcast(args.softcap) * tanh(s * broadcast(1.0F / args.softcap));
                if (masked) {
                    const auto ahead = static_cast<float>(entries[t] - tile.limit);
                    s = where_greater(broadcast(ahead), position, broadcast(-infinity), s);
                }
                store(at, s);
                top = max(s, top);
            }
            // where nothing was seen yet, anything finite does
            const Vec reference = where_greater(top, broadcast(-infinity), top, broadcast(0.0F));
            const Vec decay = exp(load(top_ + column) - reference);
            Vec total = load(total_ + column) * decay;
            for (int t = 0; t < count; ++t) {
                float* at = &score_[t * panel_width + column];
                const Vec weight = exp(load(at) - reference);
                store(at, weight);
                total = total + weight;
            }
            store(top_ + column, top);
            store(decay_ + column, decay);
            store(total_ + column, total);
        }
    }

    void give(const BlockSparseArgs& args, const PrefillTile& tile) const {
        for (int i = 0; i < tile.count; ++i) {
            const std::int64_t row = tile.head * args.positions + tile.first + i;
            const bool empty = total_[i] == 0.0F;
            const float share = empty ? 0.0F : 1.0F / total_[i];
            for (int d = 0; d < head_size_; ++d)
                args.out[row * head_size_ + d] = sum_[static_cast<std::size_t>(d) * panel_width + i] * share;
            args.lse[row] = empty ? -infinity : top_[i] + std::log(total_[i]);
        }
    }

    static const float* numbers() {
        alignas(64) static const auto kept = [] {
            std::array<float, panel_width> result{};
            for (int i = 0; i < panel_width; ++i) result[i] = static_cast<float>(i);
            return result;
        }();
        return kept.data();
    }

    int head_size_;
    std::int64_t stride_;
    std::vector<float> q_, rows_, score_, sum_;
    std::vector<std::int32_t> entries_;
    alignas(64) float top_[panel_width] = {};
    alignas(64) float total_[panel_width] = {};
    alignas(64) float decay_[panel_width] = {};
};

inline void block_sparse_prefill(const BlockSparseArgs& args) {
    const std::vector<PrefillTile> tiles = prefill_tiles(args, panel_width, 0, args.groups);
    const auto items = static_cast<std::int64_t>(tiles.size());
#pragma omp parallel num_threads(args.threads) if (args.threads > 1 && items > 1)
    {
        PrefillScratch scratch(args.head_size);
#pragma omp for schedule(dynamic, 1)
        for (std::int64_t item = 0; item < items; ++item)
            if (!args.interrupt->poll()) scratch.attend(args, tiles[item]);
    }
    args.interrupt->raise();
}

}  // namespace longspan::LONGSPAN_ISA
