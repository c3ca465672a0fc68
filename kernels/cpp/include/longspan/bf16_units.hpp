// The units of 32 entries that a band of positions sees, for products in bfloat16.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "longspan/array.hpp"
#include "longspan/bf16_operands.hpp"
#include "longspan/block_sparse_prefill_args.hpp"
#include "longspan/prefill_tiles.hpp"

namespace longspan::LONGSPAN_ISA {

inline constexpr int unit_entries = 32;
inline constexpr int step_units = 32;  // what is located at once
inline constexpr int band_positions = 256;

// Entries taken together: neighbours, `ids` null, or any.
struct Unit {
    std::int64_t first;
    const std::int32_t* ids;
    int count;
    // where its rows lie, once it is located
    const Bf16* keys = nullptr;
    std::int64_t row_stride = 0;
    const Bf16* values = nullptr;  // transposed

    std::int64_t entry(int row) const { return ids ? ids[row] : first + row; }
};

class BandUnits {
   public:
    explicit BandUnits(int head_size)
        : size_(head_size),
          keys_(static_cast<std::size_t>(head_size) * unit_entries * step_units),
          values_(static_cast<std::size_t>(head_size) * unit_entries * step_units),
          row_values_(static_cast<std::size_t>(head_size) * unit_entries) {}

    void list(const BlockSparseArgs& args, const PrefillTile& band) {
        units_.clear();
        loose_.clear();
        const std::int64_t stop = std::min(args.entries, band.limit + band.count);
        const std::int64_t block = args.blocks ? args.block : std::max<std::int64_t>(args.entries, unit_entries);
        const std::int64_t width = (args.entries + args.block - 1) / args.block;
        const std::int64_t height = (args.positions + args.block - 1) / args.block;
        const bool* chosen = args.blocks ? args.blocks + (band.head * height + band.block) * width : nullptr;
        const bool* columns = args.columns ? args.columns + band.head * args.entries : nullptr;
        for (std::int64_t y = 0; y * block < stop; ++y) {
            const std::int64_t end = std::min((y + 1) * block, stop);
            if (!chosen || chosen[y]) {
                list_block(y * block, end, args.entries);
            } else if (columns) {
                for (std::int64_t t = y * block; t < end; ++t)
                    if (columns[t]) loose_.push_back(static_cast<std::int32_t>(t));
            }
        }
        for (std::size_t at = 0; at < loose_.size(); at += unit_entries)
            units_.push_back({0, loose_.data() + at, static_cast<int>(std::min<std::size_t>(unit_entries, loose_.size() - at))});
    }

    std::int64_t size() const { return static_cast<std::int64_t>(units_.size()); }

    // The units [begin, begin + count), at most step_units, located until the next call; `values`: the group's, transposed,
    // for as many units as lie whole in the entries. What is chosen one by one is copied.
    const Unit* locate(const BlockSparseArgs& args, std::int64_t group, const Bf16* values, std::int64_t begin, int count) {
        const std::int64_t unit_size = static_cast<std::int64_t>(unit_entries) * size_;
        for (int u = 0; u < count; ++u) {
            Unit& unit = units_[begin + u];
            if (unit.ids) {
                copy(args, group, unit, keys_.data() + u * unit_size, values_.data() + u * unit_size);
            } else {
                unit.keys = group_rows(args.keys, group) + unit.first * args.keys.row_stride;
                unit.row_stride = args.keys.row_stride;
                unit.values = values + unit.first / unit_entries * unit_size;
            }
        }
        return units_.data() + begin;
    }

   private:
    // What lies whole in the entries and begins where transposed values do is read where it lies.
    void list_block(std::int64_t begin, std::int64_t end, std::int64_t entries) {
        std::int64_t t = begin;
        if (begin % unit_entries == 0)
            for (; t < end && t + unit_entries <= entries; t += unit_entries)
                units_.push_back({t, nullptr, static_cast<int>(std::min<std::int64_t>(unit_entries, end - t))});
        for (; t < end; ++t) loose_.push_back(static_cast<std::int32_t>(t));
    }

    void copy(const BlockSparseArgs& args, std::int64_t group, Unit& unit, Bf16* keys, Bf16* values) {
        std::fill_n(keys, unit_entries * size_, Bf16{0});
        std::fill(row_values_.begin(), row_values_.end(), Bf16{0});
        for (int row = 0; row < unit.count; ++row) {
            std::copy_n(group_rows(args.keys, group) + unit.ids[row] * args.keys.row_stride, size_, keys + row * size_);
            std::copy_n(group_rows(args.values, group) + unit.ids[row] * args.values.row_stride, size_,
                        row_values_.data() + row * size_);
        }
        transpose_rows(row_values_.data(), size_, size_, values);
        unit.keys = keys;
        unit.row_stride = size_;
        unit.values = values;
    }

    static const Bf16* group_rows(const RowsView& view, std::int64_t group) {
        return static_cast<const Bf16*>(view.data) + group * view.group_stride;
    }

    int size_;
    Array<Bf16> keys_, values_, row_values_;
    std::vector<Unit> units_;
    std::vector<std::int32_t> loose_;  // entries that units name one by one
};

}  // namespace longspan::LONGSPAN_ISA
