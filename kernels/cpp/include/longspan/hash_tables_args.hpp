// What hash tables of random hyperplanes work on.
#pragma once

#include <cstdint>
#include <vector>

#include "longspan/decode_args.hpp"
#include "longspan/interrupt.hpp"

namespace longspan {

struct HashBuildArgs {
    RowsView keys;
    int groups;
    std::int64_t tokens;
    int head_size;
    const float* mean;    // [groups, head_size], taken off the keys
    const float* planes;  // [tables, head_size, bits]
    int tables;
    int bits;             // at most 16
    std::int32_t* token;  // [groups, tables, tokens], by code
    std::int32_t* bound;  // [groups, tables, 2^bits + 1]: where each code begins
    int threads;
    Interrupt* interrupt;
};

struct HashSearchArgs {
    const std::int32_t* code;  // [heads, tables]
    const std::int32_t* token;
    const std::int32_t* bound;
    int heads;
    int groups;
    int tables;
    std::int64_t codes;
    std::int64_t tokens;
    std::vector<std::vector<std::int32_t>>* found;  // a list a head, ascending
    std::vector<std::int64_t>* read;                // entries of the tables that were looked at, a head
    int threads;
};

}  // namespace longspan
