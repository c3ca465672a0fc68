// What scores of cells are made of: Q positions and T entries, all heads of a layer, `stride` of them a cell.
#pragma once

#include <algorithm>
#include <cstdint>

#include "longspan/decode_args.hpp"
#include "longspan/interrupt.hpp"

namespace longspan {

struct CellScoresArgs {
    RowsView q;  // [heads, positions, head_size]
    RowsView keys;
    int heads;
    int groups;
    int head_size;
    std::int64_t positions;
    std::int64_t entries;
    std::int64_t ahead;  // of the first entry, the first position; not negative
    int stride;
    int cells;  // a block, 1 to 32, a power of two
    std::int64_t rows;    // cells of positions, of whole blocks
    std::int64_t blocks;  // of entries
    float scale;          // of a sum of products
    float softcap;        // 0: none
    float* lse;           // [heads, rows, blocks]
    int threads;
    Interrupt* interrupt;

    // The last cell of entries that cell `row` sees; -1 where there are no entries.
    std::int64_t last_seen(std::int64_t row) const {
        return std::min(row + ahead / stride, (entries + stride - 1) / stride - 1);
    }
};

}  // namespace longspan
