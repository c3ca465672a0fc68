// Ranking clusters: centroid scores, one softmax a query head, the vote of the group, the best of it.
//
// Centroids are taken in pieces of a fixed number. A piece keeps exponentials relative to its own largest score, which
// are brought to the terms of the whole head when the votes are counted: scores are read once.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "longspan/online_softmax.hpp"
#include "longspan/select.hpp"
#include "longspan/wave_search_args.hpp"

namespace longspan::LONGSPAN_ISA {

inline constexpr std::int64_t piece_clusters = 2048;

struct Ballot {
    explicit Ballot(const WaveSearchArgs& args)
        : pieces((args.clusters + piece_clusters - 1) / piece_clusters),
          stride(pieces * piece_clusters),
          heads_a_group(args.heads / args.groups),
          exponential(args.heads * stride),
          top(args.heads * pieces),
          total(args.heads * pieces),
          vote(args.groups * stride) {}

    std::int64_t pieces;
    std::int64_t stride;
    int heads_a_group;
    std::vector<float> exponential;  // [heads, stride], relative to `top`
    std::vector<float> top;          // [heads, pieces]; after `count_votes`, the factor of the piece
    std::vector<float> total;        // [heads, pieces]
    std::vector<float> vote;         // [groups, stride]; -1 for empty clusters
};

// Scores of all heads of a group with the centroids of a piece, empty clusters at -infinity.
inline void score_piece(const WaveSearchArgs& args, std::int64_t group, std::int64_t begin, std::int64_t end,
                        int heads) {
    const float* q = args.q + group * heads * query_stride(args.head_size);
    float* out = args.score + group * heads * args.clusters;
    ScoreArgs product{q,
                      heads,
                      nullptr,
                      args.centroids.dtype,
                      args.centroids.row_stride,
                      nullptr,
                      end - begin,
                      args.head_size,
                      out + begin,
                      args.clusters};
    with_storage(product.dtype, [&]<class T>(const T*) {
        product.rows = static_cast<const T*>(args.centroids.data) + group * args.centroids.group_stride +
                       begin * args.centroids.row_stride;
        score_typed<T>(product);
    });
    const std::int32_t* size = args.size + group * args.size_group_stride;
    for (int r = 0; r < heads; ++r) {
        float* score = out + r * args.clusters;
        for (std::int64_t c = begin; c < end; ++c) {
            float s = score[c] * args.scale;
            if (args.softcap != 0.0F) s = args.softcap * std::tanh(s / args.softcap);
            score[c] = size[c] > 0 ? s : minus_infinity;
        }
    }
}

// Exponentials of a piece relative to its largest score, and their sum.
inline void exponentiate(const WaveSearchArgs& args, Ballot& ballot, std::int64_t head, std::int64_t piece) {
    const std::int64_t begin = piece * piece_clusters, end = std::min(begin + piece_clusters, args.clusters);
    const float* score = args.score + head * args.clusters;
    const float* bias = args.bias.group(head / ballot.heads_a_group);
    float* to = &ballot.exponential[head * ballot.stride];
    for (std::int64_t c = begin; c < end; ++c) to[c] = bias ? score[c] + bias[c] : score[c];
    std::fill(to + end, to + begin + piece_clusters, minus_infinity);
    Vec top = broadcast(minus_infinity), total = broadcast(0.0F);
    for (std::int64_t c = begin; c < begin + piece_clusters; c += Vec::lanes) top = max(load(to + c), top);
    const float largest = max(top);
    const Vec reference = broadcast(largest == minus_infinity ? 0.0F : largest);
    for (std::int64_t c = begin; c < begin + piece_clusters; c += Vec::lanes) {
        const Vec e = exp(load(to + c) - reference);
        total = total + e;
        store(to + c, e);
    }
    ballot.top[head * ballot.pieces + piece] = largest;
    ballot.total[head * ballot.pieces + piece] = sum(total);
}

// Replaces the largest score of each piece by what its exponentials must be multiplied with to be this head's votes.
inline void weigh_pieces(const WaveSearchArgs& args, Ballot& ballot, std::int64_t head) {
    float* top = &ballot.top[head * ballot.pieces];
    const float* total = &ballot.total[head * ballot.pieces];
    const float largest = *std::max_element(top, top + ballot.pieces);
    float sum = 0.0F;
    for (std::int64_t p = 0; p < ballot.pieces; ++p)
        if (top[p] > minus_infinity) sum += total[p] * std::exp(top[p] - largest);
    const float unit = (args.weight ? args.weight[head] : 1.0F) / sum;
    for (std::int64_t p = 0; p < ballot.pieces; ++p)
        top[p] = top[p] > minus_infinity ? std::exp(top[p] - largest) * unit : 0.0F;
}

inline void count_votes(const WaveSearchArgs& args, Ballot& ballot, std::int64_t group, std::int64_t piece) {
    const std::int64_t begin = piece * piece_clusters, end = begin + piece_clusters;
    float* vote = &ballot.vote[group * ballot.stride];
    const std::int32_t* size = args.size + group * args.size_group_stride;
    std::fill(vote + begin, vote + end, 0.0F);
    for (int r = 0; r < ballot.heads_a_group; ++r) {
        const std::int64_t head = group * ballot.heads_a_group + r;
        const Vec factor = broadcast(ballot.top[head * ballot.pieces + piece]);
        const float* exponential = &ballot.exponential[head * ballot.stride];
        for (std::int64_t c = begin; c < end; c += Vec::lanes) {
            const Vec share = load(exponential + c) * factor;
            store(vote + c, args.vote_max ? max(load(vote + c), share) : load(vote + c) + share);
        }
    }
    for (std::int64_t c = begin; c < std::min(end, args.clusters); ++c)
        if (size[c] <= 0) vote[c] = -1.0F;
}

// Writes the ids of a group; where there are too few clusters with members, empty ones fill up.
inline void announce(const WaveSearchArgs& args, const Ballot& ballot, std::int64_t group, TwoTier& winners) {
    const float* vote = &ballot.vote[group * ballot.stride];
    winners.select(vote, args.clusters, args.retrieve, args.estimate);
    std::int32_t* retrieved = args.retrieved + group * args.retrieve;
    std::int32_t* estimated = args.estimated + group * args.estimate;
    const auto full = [](std::size_t n) { return static_cast<std::int32_t>(n); };
    args.live[group] = full(winners.first.size() + winners.second.size());
    std::int32_t* retrieved_end = std::copy(winners.first.begin(), winners.first.end(), retrieved);
    std::int32_t* estimated_end = std::copy(winners.second.begin(), winners.second.end(), estimated);
    for (std::int64_t c = 0; c < args.clusters; ++c) {
        if (retrieved_end == retrieved + args.retrieve && estimated_end == estimated + args.estimate) return;
        if (vote[c] >= 0.0F) continue;
        *(retrieved_end < retrieved + args.retrieve ? retrieved_end++ : estimated_end++) = static_cast<std::int32_t>(c);
    }
}

inline void wave_search(const WaveSearchArgs& args) {
    Ballot ballot(args);
    const std::int64_t items = args.groups * ballot.pieces;
    const bool parallel = args.threads > 1 && items > 1 && args.clusters * args.heads * args.head_size > 1 << 18;
#pragma omp parallel num_threads(args.threads) if (parallel)
    {
#pragma omp for schedule(dynamic, 1)
        for (std::int64_t item = 0; item < items; ++item) {
            const std::int64_t group = item / ballot.pieces, piece = item % ballot.pieces;
            const std::int64_t begin = piece * piece_clusters, end = std::min(begin + piece_clusters, args.clusters);
            score_piece(args, group, begin, end, ballot.heads_a_group);
            for (int r = 0; r < ballot.heads_a_group; ++r)
                exponentiate(args, ballot, group * ballot.heads_a_group + r, piece);
        }
        TwoTier winners;
#pragma omp for schedule(dynamic, 1)
        for (std::int64_t group = 0; group < args.groups; ++group) {
            for (int r = 0; r < ballot.heads_a_group; ++r) weigh_pieces(args, ballot, group * ballot.heads_a_group + r);
            for (std::int64_t piece = 0; piece < ballot.pieces; ++piece) count_votes(args, ballot, group, piece);
            announce(args, ballot, group, winners);
        }
    }
}

}  // namespace longspan::LONGSPAN_ISA
