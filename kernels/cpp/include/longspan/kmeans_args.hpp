// What `segmented_kmeans` works on.
#pragma once

#include <cstdint>

#include "longspan/decode_args.hpp"
#include "longspan/interrupt.hpp"

namespace longspan {

struct KmeansArgs {
    RowsView keys;
    RowsView values;
    int groups;
    std::int64_t tokens;
    int head_size;
    std::int64_t clusters;
    std::int64_t segments;  // at most tokens and clusters
    int iterations;         // the last of which only assigns
    float even_share;       // of the seeds that are evenly spaced; the others lie apart
    bool global;            // the last assignment sees the centroids of all segments
    std::int64_t* order;    // [groups, tokens]
    std::int32_t* start;    // [groups, clusters]
    std::int32_t* size;     // [groups, clusters]
    float* centroids;       // [groups, clusters, head_size]
    float* mean_values;     // [groups, clusters, head_size]
    float* spread;          // [groups, clusters]
    int threads;
    Interrupt* interrupt;
};

}  // namespace longspan
