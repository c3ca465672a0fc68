// What product quantisation works on: keys cut into parts, each written as the number of the nearest of its centroids.
#pragma once

#include <cstdint>
#include <vector>

#include "longspan/decode_args.hpp"
#include "longspan/interrupt.hpp"

namespace longspan {

struct CodeBooks {
    RowsView keys;  // [groups, tokens, parts * part_size]
    int groups;
    std::int64_t tokens;
    int parts;
    int part_size;
    int clusters;  // of a part, at most 256
    int threads;
    Interrupt* interrupt;
};

struct CodeTrainArgs {
    CodeBooks books;
    int rounds;
    float* centroids;  // [groups, parts, clusters, part_size]
};

struct CodeEncodeArgs {
    CodeBooks books;
    const float* centroids;
    std::uint8_t* code;  // [groups, parts, tokens]
};

// Tokens written with one codebook.
struct CodedStretch {
    const float* table;        // [rows, parts, clusters, row_heads]: scores of the centroids, scaled
    const std::uint8_t* code;  // [groups, parts, tokens]
    std::int64_t tokens;
    int clusters;
};

struct CodeSearchArgs {
    std::vector<CodedStretch> stretches;
    int groups;
    int parts;
    std::int64_t rows;  // of what is found: one a KV head, or one a query head
    int row_heads;
    std::int64_t wanted;
    std::int32_t* found;  // [rows, wanted], ascending
    int threads;
};

}  // namespace longspan
