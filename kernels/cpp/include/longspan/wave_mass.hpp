// What clusters weigh before their tokens are read, as keys of a Gaussian would, and how many hold a share of it.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <vector>

#include "longspan/wave_decode_args.hpp"
#include "longspan/wave_search.hpp"

namespace longspan::LONGSPAN_ISA {

// ln size; 0 for empty clusters.
inline void log_sizes(const std::int32_t* size, std::int64_t count, float* to) {
    static const auto logs = [] {
        std::array<float, 256> table{};
        for (int n = 2; n < 256; ++n) table[n] = std::log(static_cast<float>(n));
        return table;
    }();
    for (std::int64_t c = 0; c < count; ++c)
        to[c] = size[c] < 256 ? logs[std::max(size[c], 0)] : std::log(static_cast<float>(size[c]));
}

// What turns scores of clusters [begin, end) of a group into logs of masses; `spread_bias` in mass.py says why.
inline void spread_bias(const WaveDecodeArgs& args, std::int64_t group, std::int64_t begin, std::int64_t end) {
    const WaveSearchArgs& search = args.search;
    const int heads = search.heads / search.groups, elements = heads * query_stride(search.head_size);
    const float* q = search.q + group * elements;
    double square = 0.0;
    for (int i = 0; i < elements; ++i) square += static_cast<double>(q[i]) * q[i];
    const auto unit = static_cast<float>(square / heads * search.scale * search.scale);
    const float* spread = args.spread + group * search.clusters;
    float* bias = args.bias + group * search.clusters;
    log_sizes(search.size + group * search.size_group_stride + begin, end - begin, bias + begin);
    for (std::int64_t c = begin; c < end; ++c) {
        const float log_size = bias[c], variance = unit * spread[c];
        const float frozen = std::sqrt(2.0F * log_size * variance) - log_size;
        bias[c] = log_size + (variance <= 2.0F * log_size ? 0.5F * variance : frozen);
    }
}

// Enters the scores of a piece, with `biases`, into a ballot beside the one that votes.
inline void weigh_piece(const WaveSearchArgs& search, const Ballot& ballot, Ballot& to, std::int64_t head, std::int64_t begin,
                        std::int64_t end, const PerEntry& biases) {
    const float* score = &ballot.exponential[head * ballot.stride];
    std::copy(score + begin, score + end, &to.exponential[head * to.stride + begin]);
    exponentiate(search, to, head, begin, end, biases);
}

// How many of `count` ranked clusters it takes until no head of a group leaves more unread than it may; `exact_lse` is
// the log-sum-exp [heads] of what is attended whatever is retrieved.
inline std::int32_t covering(const WaveDecodeArgs& args, const Ballot& masses, std::int64_t group,
                             const std::int32_t* ranked, std::int32_t count, const float* exact_lse) {
    const int heads = masses.heads_a_group;
    std::vector<double> left(heads, 0.0), allowed(heads);  // shares of the mass of all clusters
    for (int r = 0; r < heads; ++r) {
        const std::int64_t head = group * heads + r;
        const double open = 1.0 / (1.0 + std::exp(static_cast<double>(exact_lse[head]) - masses.lse[head]));
        allowed[r] = args.uncovered / open;
    }
    for (; count > 0; --count) {  // from the far end: sums of nothing but what is left
        const std::int64_t id = ranked[count - 1], piece = id / piece_clusters;
        bool enough = true;
        for (int r = 0; r < heads; ++r) {
            const std::int64_t head = group * heads + r;
            left[r] += masses.exponential[head * masses.stride + id] * masses.top[head * masses.pieces + piece];
            enough = enough && left[r] <= allowed[r];
        }
        if (!enough) break;
    }
    return count;
}

}  // namespace longspan::LONGSPAN_ISA
