// Places of the clusters that take part in a search, in pieces of a fixed number, and what is kept of each: the ballot.
// Where only some clusters take part, places are those of their list; `id_at` tells which cluster is at a place.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <vector>

#include "longspan/simd.hpp"
#include "longspan/wave_search_args.hpp"

namespace longspan::LONGSPAN_ISA {

inline constexpr std::int64_t piece_clusters = 2048;

inline std::int64_t whole_vectors(std::int64_t count) { return (count + Vec::lanes - 1) / Vec::lanes * Vec::lanes; }

// How many clusters of a group take part, and which one is at a place.
inline std::int64_t candidates(const WaveSearchArgs& args, std::int64_t group) {
    return args.within ? static_cast<std::int64_t>((*args.within)[group].size()) : args.clusters;
}

inline std::int64_t id_at(const WaveSearchArgs& args, std::int64_t group, std::int64_t place) {
    return args.within ? (*args.within)[group][place] : place;
}

// Calls body(place, cluster) for places [begin, end) of a group; apart, so that loops over all clusters are vector loops.
template <class Body>
inline void each_place(const WaveSearchArgs& args, std::int64_t group, std::int64_t begin, std::int64_t end, Body&& body) {
    if (args.within)
        for (std::int64_t c = begin; c < end; ++c) body(c, id_at(args, group, c));
    else
        for (std::int64_t c = begin; c < end; ++c) body(c, c);
}

inline std::int64_t most_candidates(const WaveSearchArgs& args) {
    std::int64_t most = 1;
    for (std::int64_t group = 0; group < args.groups; ++group) most = std::max(most, candidates(args, group));
    return most;
}

// Memory of the calling thread that stays from step to step: fresh pages cost a step a tenth of its time. `which`: 0 to 3.
inline float* scratch(int which, std::size_t count) {
    struct Held {
        std::unique_ptr<float[]> memory;
        std::size_t count = 0;
    };
    static thread_local Held all[4];
    Held& held = all[which];
    if (held.count < count) held.memory.reset(new float[count]), held.count = count;
    return held.memory.get();
}

// A thread has one at a time, and a `second` one beside it.
struct Ballot {
    explicit Ballot(const WaveSearchArgs& args, bool second = false)
        : pieces((most_candidates(args) + piece_clusters - 1) / piece_clusters),
          stride(pieces * piece_clusters),
          heads_a_group(args.heads / args.groups),
          exponential(scratch(second ? 2 : 0, args.heads * stride)),
          top(args.heads * pieces),
          total(args.heads * pieces),
          lse(args.heads),
          vote(scratch(second ? 3 : 1, args.groups * stride)) {}

    Ballot(const Ballot&) = delete;
    Ballot& operator=(const Ballot&) = delete;

    std::int64_t pieces_of(const WaveSearchArgs& args, std::int64_t group) const {
        return (candidates(args, group) + piece_clusters - 1) / piece_clusters;
    }

    std::int64_t pieces;  // of the longest group
    std::int64_t stride;
    int heads_a_group;
    float* exponential;      // [heads, stride], relative to `top`
    std::vector<float> top;          // [heads, pieces]; after `count_votes`, the factor of the piece
    std::vector<float> total;        // [heads, pieces]
    std::vector<float> lse;          // [heads], set by `weigh_pieces`
    float* vote;             // [groups, stride]; -1 for empty clusters
};

}  // namespace longspan::LONGSPAN_ISA
