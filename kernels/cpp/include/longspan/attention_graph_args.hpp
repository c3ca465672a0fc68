// The attention-aware graph of one KV head, and what its operations take.
#pragma once

#include <omp.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "longspan/array.hpp"
#include "longspan/dtype.hpp"
#include "longspan/stored_keys.hpp"

namespace longspan {

inline constexpr std::uint32_t no_node = 0xffffffffU;
inline constexpr std::int64_t most_nodes = std::int64_t{1} << 31;

inline constexpr int bytes_of(Dtype dtype) { return dtype == Dtype::f32 ? 4 : dtype == Dtype::i8 ? 1 : 2; }

// Keys k [D] are held as codes x [W] with q.(k - mean) = y.x, where x = (k - mean) to_codes and y = q to_queries.
struct AttentionGraph {
    int head_size = 0;
    int width = 0;   // W, a multiple of 32; columns beyond the rank of the map are zero
    int degree = 0;  // edges a node, unused ones at the end of a row being no_node
    Dtype storage = Dtype::i8;
    std::vector<float> mean;        // [D]
    std::vector<float> to_codes;    // [D, W]
    std::vector<float> to_queries;  // [D, W]
    std::vector<float> step;        // [W] code * step = x; ones unless the storage is int8
    Array<std::uint8_t> codes;      // [T, W] of the storage type
    std::vector<float> half_norms;  // [T] |x|^2 / 2
    Array<std::uint32_t> edges;     // [T, degree]
    std::vector<std::uint32_t> entries;  // nodes that every search begins with
    // Nodes are numbered so that those which queries read lie together in memory; tokens are what the caller counts.
    Array<std::uint32_t> token_of;  // [T]
    Array<std::uint32_t> node_of;   // [T]

    std::int64_t tokens() const { return static_cast<std::int64_t>(half_norms.size()); }
    std::size_t nbytes() const {
        return codes.size() + 4 * (mean.size() + to_codes.size() + to_queries.size() + step.size() + half_norms.size() +
                                   edges.size() + entries.size() + token_of.size() + node_of.size());
    }
};

// Asked from time to time by the calling thread; true ends the operation early.
using Interrupted = bool (*)();

// One a parallel region; `poll` is called by every thread, and the one that entered the region asks a few times a second.
class Interruption {
  public:
    explicit Interruption(Interrupted ask) : ask_(ask) {}
    void poll() {
        if (!ask_ || omp_get_thread_num() != 0) return;
        const double now = omp_get_wtime();
        if (now - asked_ < seconds_between) return;
        asked_ = now;
        if (ask_()) stopped_.store(true, std::memory_order_relaxed);
    }
    bool stop() const { return stopped_.load(std::memory_order_relaxed); }

  private:
    static constexpr double seconds_between = 0.1;
    Interrupted ask_;
    double asked_ = omp_get_wtime();
    std::atomic<bool> stopped_{false};
};

struct GraphNearestArgs {
    const float* queries;  // [S, W]
    std::int64_t query_count;
    const float* rows;  // [N, W]
    std::int64_t row_count;
    const float* bias;  // [N] added to the product of row n, or null
    int width;          // a multiple of 32
    int k;
    std::int32_t* ids;  // [S, k] best first, -1 where there are fewer than k rows
    int threads;
    Interrupted interrupted;
};

struct GraphSettings {
    int degree;         // edges a node
    int pivots;         // sampled queries that a key takes its candidates from
    int candidates;     // candidates kept for the occlusion rule
    int neighbours;     // nearest keys offered to every node as candidates
    int cluster_size;   // keys a cluster, of the clusters in which those are looked for
    int probes;         // clusters looked into
    int entries;        // nodes that every search begins with
    float slack;        // >= 1: how much nearer a kept edge must be to hide a candidate
};

struct GraphBuildArgs {
    AttentionGraph* graph;     // maps, settings of storage filled; the rest is built
    const float* rows;         // [T, W] the keys' codes in float32
    std::int64_t row_count;
    const std::int32_t* lists;  // [S, k] nearest keys of the sampled queries, -1 where fewer
    std::int64_t list_count;
    int list_length;
    GraphSettings settings;
    int threads;
    Interrupted interrupted;
};

struct GraphSearchArgs {
    std::vector<const AttentionGraph*> graphs;  // one a query
    const float* queries;                       // [H, D]
    int k;
    int beam;
    int patience;               // expansions without a better k-th that end the search; 0: never
    const std::int32_t* seeds;  // [H, seed_count] further nodes to begin with, -1 where fewer; or null
    int seed_count;
    StoredKeys keys;          // of all nodes, or none
    int rerank;               // best of the beam that are scored again with `keys`
    std::int32_t* ids;        // [H, k] best first
    std::int64_t* distances;  // [H]
    std::int64_t* hops;       // [H]
    int threads;
    Interrupted interrupted;
};

struct GraphInsertArgs {
    AttentionGraph* graph;
    const float* keys;  // [N, D]
    std::int64_t key_count;
    const float* bridges;  // [B, D] recent queries, through which new keys find those they are read with
    std::int64_t bridge_count;
    int beam;
    int bridge_length;  // keys a bridge brings together
    float slack;
    Interrupted interrupted;
};

}  // namespace longspan
