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
    std::int32_t* run_start;       // [groups, retrieve] slots that were retrieved
    std::int32_t* run_size;        // [groups, retrieve]
    std::int32_t* run_count;       // [groups]
    std::int32_t* estimate_count;  // [groups]
    float* out;                    // [heads, head_size]
    float* lse;                    // [heads]
};

}  // namespace longspan
