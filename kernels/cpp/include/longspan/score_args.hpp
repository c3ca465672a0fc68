// Scoring rows against queries: the building block that searches share.
#pragma once

#include <cstdint>

#include "longspan/dtype.hpp"

namespace longspan {

struct ScoreArgs {
    const float* q;           // [queries, padded_head_size], rows padded with zeros to a multiple of 16
    int queries;
    const void* rows;         // [count or more, head_size] of `dtype`
    Dtype dtype;
    std::int64_t row_stride;  // in elements
    const std::int32_t* ids;  // the rows to score, or null for rows 0 .. count - 1
    std::int64_t count;
    int head_size;            // a multiple of 8
    float* out;               // [queries, out_stride]: inner products, unscaled
    std::int64_t out_stride;
};

// What rows of float32 queries are padded to, whatever the instruction set.
inline constexpr int query_stride(int head_size) { return (head_size + 15) / 16 * 16; }

}  // namespace longspan
