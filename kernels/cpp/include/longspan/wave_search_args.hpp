// What `wave_search` works on: the centroids of a layer and one query position.
#pragma once

#include <cstdint>
#include <vector>

#include "longspan/decode_args.hpp"

namespace longspan {

struct WaveSearchArgs {
    const float* q;  // [heads, query_stride(head_size)]
    int heads;
    int groups;
    int head_size;
    std::int64_t clusters;
    RowsView centroids;
    const std::int32_t* size;  // [groups, clusters], adjacent within a group; <= 0: empty
    std::int64_t size_group_stride;
    const std::vector<std::vector<std::int32_t>>* within;  // [groups] ids that take part, ascending, or null for all
    PerEntry bias;        // added to the scores that vote
    const float* weight;  // [heads] units of vote, or null for one each
    bool vote_max;        // the largest vote of a group counts, not the sum
    float scale;
    float softcap;  // 0: none
    int retrieve;
    int estimate;
    std::int32_t* retrieved;  // [groups, retrieve], best first
    std::int32_t* estimated;  // [groups, estimate], ascending, empty ones last
    std::int32_t* live;       // [groups]
    float* score;             // [heads, clusters], or null: nobody asks
    int threads;
};

}  // namespace longspan
