// Every key scored by its int8 code, and the best of them found.
#pragma once

#include <cstdint>
#include <vector>

#include "longspan/stored_keys.hpp"

namespace longspan {

// Consecutive tokens whose codes have one unit a column.
struct ScanStretch {
    const std::int8_t* codes;  // [G, T, W]
    std::int64_t tokens;
    const float* weights;  // [H, W] the queries, in the units of these codes
};

struct KeyScanArgs {
    std::vector<ScanStretch> stretches;
    int heads;
    int groups;  // divide the heads
    int width;   // W, a multiple of 32
    const float* queries;  // [H, D], for `keys`
    int head_size;
    StoredKeys keys;  // of all tokens, or none
    int candidates;   // at least k; the best by codes, ordered by `keys`
    int k;
    std::int32_t* ids;  // [H, k] best first
    int threads;
};

}  // namespace longspan
