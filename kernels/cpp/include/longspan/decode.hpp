// Decode attention over all entries, or over those that runs name.
//
// The work is cut into pieces of a fixed number of entries or runs, whatever the number of threads, and the pieces of a
// row are merged in order: results do not depend on the threads.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "longspan/decode_args.hpp"
#include "longspan/merge.hpp"
#include "longspan/online_softmax.hpp"
#include "longspan/sampling.hpp"

namespace longspan::LONGSPAN_ISA {

struct DecodePlan {
    std::int64_t rows;    // selector rows: one a KV head, or one a query head
    int row_heads;        // query heads of a row
    std::int64_t length;  // entries or runs of a row, at most
    std::int64_t step;    // entries or runs of a piece
    std::int64_t pieces;  // pieces of a row
};

inline DecodePlan plan_decode(const DecodeArgs& args) {
    DecodePlan plan{};
    plan.rows = args.runs.rows ? args.runs.rows : args.groups;
    plan.row_heads = args.heads / static_cast<int>(plan.rows);
    plan.length = args.runs.rows ? args.runs.width : args.entries;
    const std::int64_t least = args.runs.sizes ? 128 : 2048;
    plan.step = std::max(least, (plan.length + 63) / 64);
    plan.pieces = std::max<std::int64_t>(1, (plan.length + plan.step - 1) / plan.step);
    return plan;
}

// The scratch memory of a thread.
struct DecodeScratch {
    DecodeScratch(int heads, int head_size) : softmax(heads, head_size) {}

    OnlineSoftmax softmax;
    std::vector<std::int32_t> entries;
    alignas(64) float key_scale[block_entries] = {};
    alignas(64) float value_scale[block_entries] = {};
    alignas(64) float bias[block_entries] = {};
};

// The entries of a piece, clipped to those that are there.
inline void list_entries(const DecodeArgs& args, const DecodePlan& plan, std::int64_t row, std::int64_t piece,
                         std::vector<std::int32_t>& entries) {
    entries.clear();
    const std::int64_t begin = piece * plan.step;
    const std::int64_t limit = args.runs.rows ? args.runs.counts[row] : plan.length;
    const std::int64_t end = std::min({limit, plan.length, begin + plan.step});
    for (std::int64_t i = begin; i < end; ++i) {
        if (!args.runs.rows) {
            entries.push_back(static_cast<std::int32_t>(i));
            continue;
        }
        const std::int64_t at = row * plan.length + i;
        const std::int64_t start = args.runs.starts[at] - args.first;
        const std::int64_t size = args.runs.sizes ? args.runs.sizes[at] : 1;
        const std::int64_t stop = std::min(start + size, args.entries);
        for (std::int64_t t = std::max<std::int64_t>(start, 0); t < stop; ++t)
            entries.push_back(static_cast<std::int32_t>(t));
    }
}

// Copies what belongs to the entries of a block; null where there is nothing to copy.
inline const float* gather(const float* from, const std::int32_t* entries, int count, float* to) {
    if (!from) return nullptr;
    for (int t = 0; t < count; ++t) to[t] = from[entries[t]];
    return to;
}

// Calls body(array of pointers to the rows of these entries), typed as they are stored.
template <class Body>
inline void with_rows(const RowsView& view, std::int64_t group, const std::int32_t* entries, int count, Body&& body) {
    with_storage(view.dtype, [&]<class T>(const T*) {
        const T* base = static_cast<const T*>(view.data) + group * view.group_stride;
        const T* rows[block_entries + most_ahead];
        for (int t = 0; t < count; ++t) rows[t] = base + entries[t] * view.row_stride;
        body(rows);
    });
}

inline void attend_piece(const DecodeArgs& args, const DecodePlan& plan, std::int64_t row, std::int64_t piece,
                         DecodeScratch& scratch, float* out, float* lse) {
    const std::int64_t group = row * args.groups / plan.rows;
    const float* q = args.q + row * plan.row_heads * query_stride(args.head_size);
    OnlineSoftmax& softmax = scratch.softmax;
    softmax.reset(q);
    list_entries(args, plan, row, piece, scratch.entries);
    const auto total = static_cast<std::int64_t>(scratch.entries.size());
    for (std::int64_t begin = 0; begin < total; begin += block_entries) {
        const std::int32_t* entries = scratch.entries.data() + begin;
        const int count = static_cast<int>(std::min<std::int64_t>(block_entries, total - begin));
        const int known = static_cast<int>(std::min<std::int64_t>(count + most_ahead, total - begin));
        with_rows(args.keys, group, entries, known, [&](auto& rows) { softmax.score(rows, count, known); });
        const float* bias = args.sampling ? sampling_bias(*args.sampling, group, row, softmax.products(), entries, count, scratch.bias)
                                          : gather(args.bias.group(group), entries, count, scratch.bias);
        softmax.absorb(count, args.scale, args.softcap,
                       gather(args.key_scale.group(group), entries, count, scratch.key_scale),
                       gather(args.value_scale.group(group), entries, count, scratch.value_scale), bias);
        with_rows(args.values, group, entries, known, [&](auto& rows) { softmax.weigh(rows, count, known); });
    }
    softmax.finish(out, lse);
}

inline void decode(const DecodeArgs& args) {
    const DecodePlan plan = plan_decode(args);
    const std::int64_t items = plan.rows * plan.pieces;
    const bool parallel = args.threads > 1 && items > 1 && plan.length * args.heads * args.head_size > 1 << 17;
    const bool direct = plan.pieces == 1;
    std::vector<float> outs(direct ? 0 : plan.pieces * args.heads * args.head_size);
    std::vector<float> lses(direct ? 0 : plan.pieces * args.heads);

#pragma omp parallel num_threads(args.threads) if (parallel)
    {
        DecodeScratch scratch(plan.row_heads, args.head_size);
#pragma omp for schedule(dynamic, 1)
        for (std::int64_t item = 0; item < items; ++item) {
            const std::int64_t row = item / plan.pieces, piece = item % plan.pieces;
            const std::int64_t head = (direct ? 0 : piece * args.heads) + row * plan.row_heads;
            float* out = (direct ? args.out : outs.data()) + head * args.head_size;
            attend_piece(args, plan, row, piece, scratch, out, (direct ? args.lse : lses.data()) + head);
        }
    }
    if (direct) return;
    MergeArgs parts{{}, {}, args.out, args.lse, args.heads, args.head_size, 1};
    for (std::int64_t piece = 0; piece < plan.pieces; ++piece) {
        parts.outs.push_back(outs.data() + piece * args.heads * args.head_size);
        parts.lses.push_back(lses.data() + piece * args.heads);
    }
    merge(parts);
}

}  // namespace longspan::LONGSPAN_ISA
