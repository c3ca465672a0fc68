// What the query heads of a group found, brought together, and how much of every cluster that leaves.
#pragma once

#include <atomic>
#include <cstdint>

namespace longspan {

struct TokenUnionArgs {
    const std::int32_t* token;  // [H, K]
    const std::int32_t* count;  // [H] how many of a head's tokens are there
    const std::int32_t* place;  // [G, T] where the tokens lie in the order of the clusters
    const std::int32_t* size;   // [G, C] of clusters that follow one another in that order
    int heads;
    int groups;  // divide the heads
    std::int64_t found;
    std::int64_t tokens;
    std::int64_t clusters;
    std::int32_t* union_place;  // [G, H / G * K] ascending
    std::int32_t* union_count;  // [G]
    std::int32_t* left;         // [G, C]
    int threads;
    std::atomic<bool>* wrong;  // set where a token, a place or a cluster is not there
};

}  // namespace longspan
