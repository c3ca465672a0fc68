// What `merge` works on.
#pragma once

#include <cstdint>
#include <vector>

namespace longspan {

struct MergeArgs {
    std::vector<const float*> outs;  // P arrays [rows, head_size]
    std::vector<const float*> lses;  // P arrays [rows]
    float* out;                      // [rows, head_size]
    float* lse;                      // [rows]
    std::int64_t rows;
    std::int64_t head_size;
    int threads;
};

}  // namespace longspan
