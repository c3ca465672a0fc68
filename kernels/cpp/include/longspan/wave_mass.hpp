// What clusters weigh before their tokens are read, as keys of a Gaussian would, and how wrong that may be.
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

// Whose exponential is still a number.
inline constexpr float most_raised = 80.0F;

// By how much of a head's attention the estimates of some clusters of a group are expected to err, for the head that each
// matters most to; `estimate_errors` in mass.py says why. `exact_lse` [heads] is the log-sum-exp of what is attended
// exactly anyway.
inline std::vector<float> estimate_errors(const WaveDecodeArgs& args, const Ballot& masses, std::int64_t group,
                                          const std::int32_t* ids, std::int64_t count, const float* exact_lse) {
    const WaveSearchArgs& search = args.search;
    const std::int64_t padded = whole_vectors(count);
    std::vector<float> raised(padded);  // twice the log of what the spread multiplies the mean weight with
    const std::int32_t* size = search.size + group * search.size_group_stride;
    const float* bias = args.bias + group * search.clusters;
    for (std::int64_t i = 0; i < count; ++i) {
        log_sizes(size + ids[i], 1, &raised[i]);
        raised[i] = std::min(2.0F * (bias[ids[i]] - raised[i]), most_raised);
    }
    std::vector<float> error(count, 0.0F);
    for (int r = 0; r < masses.heads_a_group; ++r) {
        const std::int64_t head = group * masses.heads_a_group + r;
        const float open = 1.0F / (1.0F + std::exp(exact_lse[head] - masses.lse[head]));
        const float* exponential = masses.exponential + head * masses.stride;
        const float* factor = &masses.top[head * masses.pieces];
        for (std::int64_t i = 0; i < count; ++i)
            error[i] = std::max(exponential[ids[i]] * factor[ids[i] / piece_clusters] * open, error[i]);
    }
    for (std::int64_t i = 0; i < padded; i += Vec::lanes) store(&raised[i], exp(broadcast(0.0F) - load(&raised[i])));
    for (std::int64_t i = 0; i < count; ++i) error[i] *= std::sqrt(std::max((1.0F - raised[i]) / raised[i], 0.0F));
    return error;
}

}  // namespace longspan::LONGSPAN_ISA
