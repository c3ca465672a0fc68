// What `wave_decode` works on: a layer's clusters and its store of keys and values, at one query position.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "longspan/wave_search_args.hpp"

namespace longspan {

// Slots [first, first + entries) of the store.
struct StoredPart {
    RowsView keys;
    RowsView values;
    std::int64_t first;
    std::int64_t entries;
};

struct WaveDecodeArgs {
    WaveSearchArgs search;      // without bias, weight and `within`
    RowsView means;             // values of the clusters, [groups, clusters, head_size]
    const std::int32_t* start;  // [groups, clusters] first slot of each cluster
    std::vector<StoredPart> parts;
    std::pair<std::int64_t, std::int64_t> indexed;              // where the slots lie that clusters name
    std::vector<std::pair<std::int64_t, std::int64_t>> ranges;  // slots attended whatever the query
    const float* spread;           // [groups, clusters] variance of a key's coordinate, or null: neither of what follows
    bool votes_by_mass;            // clusters are ranked by what they weigh, not by their centroids' scores
    bool gaussian;                 // estimated clusters weigh as that many keys of a Gaussian, not as their size
    float tolerance;               // clusters whose estimate is expected to err by as much are read; 0: no more than the best
    float* bias;                   // [groups, clusters] log of such a cluster's mass less its score; where `spread` is
    std::int64_t room;             // search.retrieve, and where there is a tolerance search.estimate more
    std::int32_t* run_start;       // [groups, room] slots that were retrieved
    std::int32_t* run_size;        // the same
    std::int32_t* run_count;       // [groups]
    std::int32_t* estimate_count;  // [groups]
    float* out;                    // [heads, head_size]
    float* lse;                    // [heads]
};

}  // namespace longspan
