// The keys themselves, for scores that codes only come near.
#pragma once

#include <cstdint>
#include <vector>

#include "longspan/dtype.hpp"

namespace longspan {

// Keys [G, T, D] of the tokens first, first + 1, ...; strides in elements, D adjacent.
struct KeyPart {
    std::int64_t first;
    const void* keys;
    std::int64_t head_stride;
    std::int64_t row_stride;
};

// Part after part; queries h, h + 1, ... share a head of all of them.
struct StoredKeys {
    std::vector<KeyPart> parts;
    Dtype dtype;
    int queries_a_head;
};

}  // namespace longspan
