// A whole decode step over clusters: search, attention to what it retrieves, estimates and always reads, and the merge.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <deque>
#include <vector>

#include "longspan/decode.hpp"
#include "longspan/wave_decode_args.hpp"
#include "longspan/wave_search.hpp"
#include "longspan/weigh.hpp"

namespace longspan::LONGSPAN_ISA {

// Attention of all heads to some of what a step reads.
struct StepPart {
    explicit StepPart(const WaveSearchArgs& args) : out(args.heads * args.head_size), lse(args.heads) {}

    std::vector<float> out;  // [heads, head_size]
    std::vector<float> lse;  // [heads]
};

// Says which slots and clusters of a group are read.
inline void list_runs(const WaveDecodeArgs& args, std::int64_t group) {
    const WaveSearchArgs& search = args.search;
    const int retrieved = std::min(search.live[group], search.retrieve);
    args.run_count[group] = retrieved;
    args.estimate_count[group] = search.live[group] - retrieved;
    for (std::int64_t i = group * search.retrieve; i < (group + 1) * search.retrieve; ++i) {
        const std::int64_t at = group * search.clusters + search.retrieved[i];
        args.run_start[i] = args.start[at];
        args.run_size[i] = search.size[at];
    }
}

// Attention of a group to the mean values of the clusters that are estimated: the search knows what each weighs, so that
// their centroids are not read again.
inline void attend_estimated(const WaveDecodeArgs& args, const Ballot& ballot, std::int64_t group, StepPart& to) {
    const WaveSearchArgs& search = args.search;
    const int heads = ballot.heads_a_group, head_size = search.head_size;
    const std::int64_t count = args.estimate_count[group], stride = std::max<std::int64_t>(whole_vectors(count), 1);
    const std::int32_t* ids = search.estimated + group * search.estimate;
    const std::int32_t* size = search.size + group * search.size_group_stride;
    std::vector<float> weight(heads * stride), total(heads), kept(heads, 1.0F), sum(heads * query_stride(head_size));
    for (int r = 0; r < heads; ++r) {
        const std::int64_t head = group * heads + r;
        double mass = 0.0;
        for (std::int64_t i = 0; i < count; ++i) {
            const float share = ballot.exponential[head * ballot.stride + ids[i]] *
                                ballot.top[head * ballot.pieces + ids[i] / piece_clusters];
            weight[r * stride + i] = share * static_cast<float>(size[ids[i]]);
            mass += weight[r * stride + i];
        }
        total[r] = static_cast<float>(mass);
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
        const float share = total[r] > 0.0F ? 1.0F / total[r] : 0.0F;
        const std::int64_t head = group * heads + r;
        for (int d = 0; d < head_size; ++d) to.out[head * head_size + d] = sum[r * query_stride(head_size) + d] * share;
        to.lse[head] = total[r] > 0.0F ? ballot.lse[head] + std::log(total[r]) : minus_infinity;
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

inline void wave_decode(const WaveDecodeArgs& args) {
    const WaveSearchArgs& search = args.search;
    Ballot ballot(search);
    std::deque<StepPart> done;  // which does not move what it holds
    StepPart& estimated = done.emplace_back(search);
    rank_clusters(search, ballot, [&](std::int64_t group) {
        list_runs(args, group);
        attend_estimated(args, ballot, group, estimated);
    });
    const RunsView runs{args.run_start, args.run_size, args.run_count, search.groups, search.retrieve};
    for (const StoredPart& part : args.parts) {
        attend_stored(args, part, args.indexed.first, args.indexed.second, runs, done);
        for (const auto& [start, stop] : args.ranges) attend_stored(args, part, start, stop, {}, done);
    }
    MergeArgs all{{}, {}, args.out, args.lse, search.heads, search.head_size, 1};
    for (const StepPart& part : done) all.outs.push_back(part.out.data()), all.lses.push_back(part.lse.data());
    merge(all);
}

}  // namespace longspan::LONGSPAN_ISA
