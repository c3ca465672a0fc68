// Ranking clusters: centroid scores, one softmax a query head, the vote of the group, the best of it.
//
// A piece of the clusters keeps exponentials relative to its own largest score, which are brought to the terms of the
// whole head when the votes are counted: scores are read once.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "longspan/online_softmax.hpp"
#include "longspan/select.hpp"
#include "longspan/wave_ballot.hpp"
#include "longspan/wave_search_args.hpp"

namespace longspan::LONGSPAN_ISA {

// Raw products of all heads of a group with the centroids of a piece.
inline void multiply_piece(const WaveSearchArgs& args, Ballot& ballot, std::int64_t group, std::int64_t begin,
                           std::int64_t end) {
    const std::int64_t head = group * ballot.heads_a_group;
    with_storage(args.centroids.dtype, [&]<class T>(const T*) {
        const T* rows = static_cast<const T*>(args.centroids.data) + group * args.centroids.group_stride;
        const std::int32_t* ids = args.within ? (*args.within)[group].data() + begin : nullptr;
        if (!ids) rows += begin * args.centroids.row_stride;
        score_typed<T>({args.q + head * query_stride(args.head_size), ballot.heads_a_group, rows, args.centroids.dtype,
                        args.centroids.row_stride, ids, end - begin, args.head_size,
                        &ballot.exponential[head * ballot.stride + begin], ballot.stride});
    });
}

// Products become scores, -infinity where a cluster is empty.
inline void finish_piece(const WaveSearchArgs& args, float* score, std::int64_t head, std::int64_t begin,
                         std::int64_t end) {
    const std::int64_t group = head / (args.heads / args.groups);
    const std::int32_t* size = args.size + group * args.size_group_stride;
    for (std::int64_t c = begin; c < end; c += Vec::lanes) store(score + c, load(score + c) * broadcast(args.scale));
    for (std::int64_t c = begin; args.softcap != 0.0F && c < end; c += Vec::lanes)
        store(score + c, broadcast(args.softcap) * tanh(load(score + c) * broadcast(1.0F / args.softcap)));
    each_place(args, group, begin, end, [=](std::int64_t c, std::int64_t id) { score[c] = size[id] > 0 ? score[c] : minus_infinity; });
    if (float* told = args.score ? args.score + head * args.clusters : nullptr)
        each_place(args, group, begin, end, [=](std::int64_t c, std::int64_t id) { told[id] = score[c]; });
}

// The largest of some scores, and the sum of their exponentials relative to it.
struct Softmax {
    float largest, total;
};

// Scores become exponentials relative to the largest. There must be room for whole vectors, whose rest becomes 0.
inline Softmax exponentials(float* score, std::int64_t count) {
    const std::int64_t padded = whole_vectors(count);
    std::fill(score + count, score + padded, minus_infinity);
    Vec top = broadcast(minus_infinity), total = broadcast(0.0F);
    for (std::int64_t c = 0; c < padded; c += Vec::lanes) top = max(load(score + c), top);
    const float largest = max(top);
    const Vec reference = broadcast(largest == minus_infinity ? 0.0F : largest);
    for (std::int64_t c = 0; c < padded; c += Vec::lanes) {
        const Vec e = exp(load(score + c) - reference);
        total = total + e;
        store(score + c, e);
    }
    return {largest, sum(total)};
}

// Scores of a piece, with `biases` added, become exponentials relative to the largest, which is kept with their sum.
inline void exponentiate(const WaveSearchArgs& args, Ballot& ballot, std::int64_t head, std::int64_t begin,
                         std::int64_t end, const PerEntry& biases) {
    const std::int64_t piece = head * ballot.pieces + begin / piece_clusters;
    float* score = &ballot.exponential[head * ballot.stride];
    if (const float* bias = biases.group(head / ballot.heads_a_group))
        each_place(args, head / ballot.heads_a_group, begin, end, [=](std::int64_t c, std::int64_t id) { score[c] += bias[id]; });
    const Softmax softmax = exponentials(score + begin, end - begin);
    ballot.top[piece] = softmax.largest, ballot.total[piece] = softmax.total;
}

// Replaces the largest score of each piece by what its exponentials must be multiplied with to be this head's votes.
inline void weigh_pieces(const WaveSearchArgs& args, Ballot& ballot, std::int64_t head) {
    float* top = &ballot.top[head * ballot.pieces];
    const float* total = &ballot.total[head * ballot.pieces];
    const std::int64_t pieces = ballot.pieces_of(args, head / ballot.heads_a_group);
    const float largest = pieces ? *std::max_element(top, top + pieces) : minus_infinity;
    float sum = 0.0F;
    for (std::int64_t p = 0; p < pieces; ++p)
        if (total[p] != 0.0F) sum += total[p] * std::exp(top[p] - largest);
    ballot.lse[head] = sum == 0.0F ? minus_infinity : largest + std::log(sum);  // NaN stays NaN
    const float unit = (args.weight ? args.weight[head] : 1.0F) / sum;
    for (std::int64_t p = 0; p < pieces; ++p)
        top[p] = top[p] > minus_infinity ? std::exp(top[p] - largest) * unit : 0.0F;
}

inline void count_votes(const WaveSearchArgs& args, Ballot& ballot, std::int64_t group, std::int64_t piece) {
    const std::int64_t begin = piece * piece_clusters, end = std::min(begin + piece_clusters, candidates(args, group));
    float* vote = &ballot.vote[group * ballot.stride];
    const std::int32_t* size = args.size + group * args.size_group_stride;
    std::fill(vote + begin, vote + whole_vectors(end), 0.0F);
    for (int r = 0; r < ballot.heads_a_group; ++r) {
        const std::int64_t head = group * ballot.heads_a_group + r;
        const Vec factor = broadcast(ballot.top[head * ballot.pieces + piece]);
        const float* exponential = &ballot.exponential[head * ballot.stride];
        for (std::int64_t c = begin; c < end; c += Vec::lanes) {
            const Vec share = load(exponential + c) * factor;
            store(vote + c, args.vote_max ? max(load(vote + c), share) : load(vote + c) + share);
        }
    }
    each_place(args, group, begin, end, [=](std::int64_t c, std::int64_t id) { vote[c] = size[id] > 0 ? vote[c] : -1.0F; });
}

// Writes the ids of a group; where too few clusters with members take part, others fill up, each once.
inline void announce(const WaveSearchArgs& args, const Ballot& ballot, std::int64_t group, TwoTier& winners) {
    winners.select(&ballot.vote[group * ballot.stride], candidates(args, group), args.retrieve, args.estimate);
    for (std::int32_t& place : winners.first) place = static_cast<std::int32_t>(id_at(args, group, place));
    for (std::int32_t& place : winners.second) place = static_cast<std::int32_t>(id_at(args, group, place));
    std::int32_t* retrieved = args.retrieved + group * args.retrieve;
    std::int32_t* estimated = args.estimated + group * args.estimate;
    std::int32_t* retrieved_end = std::copy(winners.first.begin(), winners.first.end(), retrieved);
    std::int32_t* estimated_end = std::copy(winners.second.begin(), winners.second.end(), estimated);
    args.live[group] = static_cast<std::int32_t>(winners.first.size() + winners.second.size());
    if (args.live[group] == args.retrieve + args.estimate) return;
    std::vector<bool> taken(args.clusters, false);
    for (std::int32_t id : winners.first) taken[id] = true;
    for (std::int32_t id : winners.second) taken[id] = true;
    for (std::int32_t c = 0; c < args.clusters; ++c) {
        if (retrieved_end == retrieved + args.retrieve && estimated_end == estimated + args.estimate) return;
        if (!taken[c]) *(retrieved_end < retrieved + args.retrieve ? retrieved_end++ : estimated_end++) = c;
    }
}

// Counts the votes of all groups. From any thread, scored(head, begin, end) is called while places of a head hold plain
// scores, and counted(group, selector) once all votes of a group are counted.
template <class Scored, class Counted>
inline void rank_clusters(const WaveSearchArgs& args, Ballot& ballot, Scored&& scored, Counted&& counted) {
    const std::int64_t items = args.groups * ballot.pieces;
    const bool parallel = args.threads > 1 && items > 1 && most_candidates(args) * args.heads * args.head_size > 1 << 18;
#pragma omp parallel num_threads(args.threads) if (parallel)
    {
#pragma omp for schedule(dynamic, 1)
        for (std::int64_t item = 0; item < items; ++item) {
            const std::int64_t group = item / ballot.pieces, piece = item % ballot.pieces;
            const std::int64_t begin = piece * piece_clusters, end = std::min(begin + piece_clusters, candidates(args, group));
            if (begin >= end) continue;
            multiply_piece(args, ballot, group, begin, end);
            for (std::int64_t head = group * ballot.heads_a_group; head < (group + 1) * ballot.heads_a_group; ++head) {
                finish_piece(args, &ballot.exponential[head * ballot.stride], head, begin, end);
                scored(head, begin, end);
                exponentiate(args, ballot, head, begin, end, args.bias);
            }
        }
        TwoTier winners;
#pragma omp for schedule(dynamic, 1)
        for (std::int64_t group = 0; group < args.groups; ++group) {
            for (int r = 0; r < ballot.heads_a_group; ++r) weigh_pieces(args, ballot, group * ballot.heads_a_group + r);
            for (std::int64_t piece = 0; piece < ballot.pieces_of(args, group); ++piece) count_votes(args, ballot, group, piece);
            counted(group, winners);
        }
    }
}

inline void wave_search(const WaveSearchArgs& args) {
    Ballot ballot(args);
    rank_clusters(
        args, ballot, [](std::int64_t, std::int64_t, std::int64_t) {},
        [&](std::int64_t group, TwoTier& winners) { announce(args, ballot, group, winners); });
}

}  // namespace longspan::LONGSPAN_ISA
