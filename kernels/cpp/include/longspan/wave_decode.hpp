// A whole decode step over clusters: search, attention to what it retrieves, estimates and always reads, and the merge.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <deque>
#include <optional>
#include <vector>

#include "longspan/decode.hpp"
#include "longspan/wave_decode_args.hpp"
#include "longspan/wave_mass.hpp"
#include "longspan/wave_search.hpp"
#include "longspan/weigh.hpp"

namespace longspan::LONGSPAN_ISA {

// Attention of all heads to some of what a step reads.
struct StepPart {
    explicit StepPart(const WaveSearchArgs& args) : out(args.heads * args.head_size), lse(args.heads) {}

    std::vector<float> out;  // [heads, head_size]
    std::vector<float> lse;  // [heads]
};

// Chooses which clusters of a group are read, and which are estimated: the best, the next best; but where there is a
// tolerance, those of the next best that an estimate would get wrong are read as well.
inline void choose(const WaveDecodeArgs& args, const Ballot& ballot, const Ballot& masses, std::int64_t group,
                   const float* exact_lse, TwoTier& winners) {
    const WaveSearchArgs& search = args.search;
    announce(search, ballot, group, winners);
    const std::int32_t best = std::min(search.live[group], search.retrieve), next = search.live[group] - best;
    std::int32_t read = 0, kept = 0;
    const auto list = [&](std::int32_t id) {
        args.run_start[group * args.room + read] = args.start[group * search.clusters + id];
        args.run_size[group * args.room + read++] = search.size[group * search.size_group_stride + id];
    };
    for (std::int32_t i = 0; i < best; ++i) list(search.retrieved[group * search.retrieve + i]);
    std::int32_t* ids = search.estimated + group * search.estimate;
    if (args.tolerance > 0.0F && next > 0) {
        const std::vector<float> error = estimate_errors(args, masses, group, ids, next, exact_lse);
        for (std::int32_t i = 0; i < next; ++i) {
            if (error[i] >= args.tolerance) list(ids[i]);
            else ids[kept++] = ids[i];
        }
    } else kept = next;
    args.run_count[group] = read, args.estimate_count[group] = kept;
}

// What the estimated clusters of a head weigh, all in the unit whose log is returned: as `ballot` knows from the search, or
// by the plain `scores` [heads, stride] that were kept for it. There must be room for whole vectors.
inline float estimated_weights(const Ballot& ballot, const float* scores, std::int64_t head, const std::int32_t* ids,
                               std::int64_t count, float* weight) {
    const float* of_head = (scores ? scores : ballot.exponential) + head * ballot.stride;
    for (std::int64_t i = 0; i < count; ++i) weight[i] = of_head[ids[i]];
    if (scores) return exponentials(weight, count).largest;
    const float* factor = &ballot.top[head * ballot.pieces];
    for (std::int64_t i = 0; i < count; ++i) weight[i] *= factor[ids[i] / piece_clusters];
    return ballot.lse[head];
}

// The same from their centroids, which are read again: for a head whose shares of them all are too small to be told, as where
// a cluster outweighs them by e^46 in the search. It may be none of those that are attended, or weigh little once it is read.
inline float weights_again(const WaveDecodeArgs& args, std::int64_t group, std::int64_t head, const std::int32_t* ids,
                           std::int64_t count, float* weight) {
    const WaveSearchArgs& search = args.search;
    with_storage(search.centroids.dtype, [&]<class T>(const T*) {
        const T* rows = static_cast<const T*>(search.centroids.data) + group * search.centroids.group_stride;
        score_typed<T>({search.q + head * query_stride(search.head_size), 1, rows, search.centroids.dtype,
                        search.centroids.row_stride, ids, count, search.head_size, weight, count});
    });
    for (std::int64_t i = 0; i < count; ++i) {
        weight[i] *= search.scale;
        if (search.softcap != 0.0F) weight[i] = search.softcap * std::tanh(weight[i] / search.softcap);
        if (args.gaussian) weight[i] += args.bias[group * search.clusters + ids[i]];
    }
    return exponentials(weight, count).largest;
}

// Attention of a group to the mean values of the clusters that are estimated; their centroids are hardly ever read again.
inline void attend_estimated(const WaveDecodeArgs& args, const Ballot& ballot, const float* scores, std::int64_t group,
                             StepPart& to) {
    const WaveSearchArgs& search = args.search;
    const int heads = ballot.heads_a_group, head_size = search.head_size;
    const std::int64_t count = args.estimate_count[group], stride = std::max<std::int64_t>(whole_vectors(count), 1);
    const std::int32_t* ids = search.estimated + group * search.estimate;
    const std::int32_t* size = search.size + group * search.size_group_stride;
    std::vector<float> weight(heads * stride), total(heads), unit(heads), kept(heads, 1.0F), sum(heads * query_stride(head_size));
    const auto summed = [&](float* of_head) {
        double mass = 0.0;
        for (std::int64_t i = 0; i < count; ++i) {
            if (!args.gaussian) of_head[i] *= static_cast<float>(size[ids[i]]);
            mass += of_head[i];
        }
        return static_cast<float>(mass);
    };
    constexpr float told = 1e-20F;  // an exponential is 0 from e^-87 on
    for (int r = 0; r < heads; ++r) {
        float* of_head = &weight[r * stride];
        unit[r] = estimated_weights(ballot, scores, group * heads + r, ids, count, of_head);
        total[r] = summed(of_head);
        if (count == 0 || total[r] >= told) continue;
        unit[r] = weights_again(args, group, group * heads + r, ids, count, of_head);
        total[r] = summed(of_head);
    }
    with_storage(args.means.dtype, [&]<class T>(const T*) {
        const T* base = static_cast<const T*>(args.means.data) + group * args.means.group_stride;
        std::vector<const T*> rows(count);
        for (std::int64_t i = 0; i < count; ++i) rows[i] = base + ids[i] * args.means.row_stride;
        for_query_tiles(heads, [&](int r, auto tile) {
            weigh_rows<tile()>(&weight[r * stride], stride, &kept[r], rows.data(), count, r == 0 ? count : 0, head_size,
                               &sum[r * query_stride(head_size)]);
        });
    });
    for (int r = 0; r < heads; ++r) {
        const float share = total[r] == 0.0F ? 0.0F : 1.0F / total[r];
        const std::int64_t head = group * heads + r;
        for (int d = 0; d < head_size; ++d) to.out[head * head_size + d] = sum[r * query_stride(head_size) + d] * share;
        to.lse[head] = total[r] == 0.0F ? minus_infinity : unit[r] + std::log(total[r]);
    }
}

// The slots [start, stop) of a part, or those that the runs name.
inline void attend_stored(const WaveDecodeArgs& args, const StoredPart& part, std::int64_t start, std::int64_t stop,
                          const RunsView& runs, std::deque<StepPart>& done) {
    start = std::max(start, part.first), stop = std::min(stop, part.first + part.entries);
    if (start >= stop) return;
    const WaveSearchArgs& search = args.search;
    StepPart& to = done.emplace_back(search);
    DecodeArgs decode_args{};
    decode_args.q = search.q, decode_args.heads = search.heads, decode_args.groups = search.groups;
    decode_args.head_size = search.head_size;
    decode_args.entries = stop - start, decode_args.first = start;
    decode_args.keys = part.keys.from(start - part.first), decode_args.values = part.values.from(start - part.first);
    decode_args.runs = runs;
    decode_args.scale = search.scale, decode_args.softcap = search.softcap;
    decode_args.out = to.out.data(), decode_args.lse = to.lse.data();
    decode_args.threads = search.threads;
    decode(decode_args);
}

// The slots of a part that are attended whatever the query.
inline void attend_ranges(const WaveDecodeArgs& args, const StoredPart& part, std::deque<StepPart>& done) {
    for (const auto& [start, stop] : args.ranges) attend_stored(args, part, start, stop, {}, done);
}

inline void merge_parts(const WaveSearchArgs& search, const std::deque<StepPart>& parts, float* out, float* lse) {
    MergeArgs all{{}, {}, out, lse, search.heads, search.head_size, 1};
    for (const StepPart& part : parts) all.outs.push_back(part.out.data()), all.lses.push_back(part.lse.data());
    merge(all);
}

inline void wave_decode(const WaveDecodeArgs& args) {
    const bool by_mass = args.votes_by_mass;
    const PerEntry mass_bias{args.bias, args.search.clusters};
    WaveSearchArgs search = args.search;
    if (by_mass) search.bias = mass_bias;
    Ballot ballot(search);
    std::optional<Ballot> apart;  // of the masses where they do not vote
    if (!by_mass && args.spread) apart.emplace(search, true);
    const Ballot& masses = apart ? *apart : ballot;
    const bool by_scores = by_mass && !args.gaussian && search.estimate > 0;
    float* const scores = by_scores ? scratch(2, search.heads * ballot.stride) : nullptr;  // where estimates need them
    std::deque<StepPart> done;  // which does not move what it holds
    StepPart& estimated = done.emplace_back(search);
    const bool tolerant = args.tolerance > 0.0F;
    if (tolerant) {  // the search has to know what the ranges weigh
        std::deque<StepPart> ranges;
        for (const StoredPart& part : args.parts) attend_ranges(args, part, ranges);
        StepPart& all = done.emplace_back(search);
        merge_parts(search, ranges, all.out.data(), all.lse.data());
    }
    const float* exact_lse = done.back().lse.data();
    const auto scored = [&](std::int64_t head, std::int64_t begin, std::int64_t end) {
        if (args.spread && head % ballot.heads_a_group == 0) spread_bias(args, head / ballot.heads_a_group, begin, end);
        const float* plain = &ballot.exponential[head * ballot.stride];
        if (scores) std::copy(plain + begin, plain + end, &scores[head * ballot.stride + begin]);
        if (apart) weigh_piece(search, ballot, *apart, head, begin, end, mass_bias);
    };
    rank_clusters(search, ballot, scored, [&](std::int64_t group, TwoTier& winners) {
        const int heads = ballot.heads_a_group;
        for (int r = 0; apart && r < heads; ++r) weigh_pieces(search, *apart, group * heads + r);
        choose(args, ballot, masses, group, exact_lse, winners);
        attend_estimated(args, args.gaussian ? masses : ballot, scores, group, estimated);
    });
    const RunsView runs{args.run_start, args.run_size, args.run_count, search.groups, args.room};
    for (const StoredPart& part : args.parts) {
        if (args.room > 0) attend_stored(args, part, args.indexed.first, args.indexed.second, runs, done);
        if (!tolerant) attend_ranges(args, part, done);
    }
    merge_parts(search, done, args.out, args.lse);
}

}  // namespace longspan::LONGSPAN_ISA
