// What block-sparse prefill attention works on: Q positions and T entries, all heads of a layer.
#pragma once

#include <cstdint>

#include "longspan/decode_args.hpp"
#include "longspan/interrupt.hpp"

namespace longspan {

struct BlockSparseArgs {
    RowsView q;  // [heads, positions, head_size]
    RowsView keys;
    RowsView values;
    int heads;
    int groups;
    int head_size;
    std::int64_t positions;
    std::int64_t entries;
    const bool* blocks;   // [heads, ceil(positions / block), ceil(entries / block)], or null: all
    const bool* columns;  // [heads, entries], or null
    std::int64_t block;
    bool causal;  // position i sees the entries up to i + entries - positions
    float scale;
    float softcap;  // 0: none
    float* out;     // [heads, positions, head_size]
    float* lse;     // [heads, positions]
    int threads;
    Interrupt* interrupt;
};

}  // namespace longspan
