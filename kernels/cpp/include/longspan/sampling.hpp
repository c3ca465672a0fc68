// The bias of tokens that were sampled by hash tables: -ln(u + least), u being how likely a token was to be sampled.
//
// In float64, since u is a small difference; a block of entries at a time, so that the compiler does some of them at once.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numbers>

#include "longspan/decode_args.hpp"
#include "longspan/online_softmax.hpp"

namespace longspan::LONGSPAN_ISA {

// The angle of a cosine, over pi; to 2e-8 (Abramowitz and Stegun, 4.4.46).
inline double share_of_turn(double cosine) {
    const double x = std::abs(cosine);
    double p = -0.0012624911;
    p = p * x + 0.0066700901;
    p = p * x - 0.0170881256;
    p = p * x + 0.0308918810;
    p = p * x - 0.0501743046;
    p = p * x + 0.0889789874;
    p = p * x - 0.2145988016;
    p = p * x + 1.5707963050;
    const double turn = p * std::sqrt(1.0 - x) / std::numbers::pi;
    return cosine < 0.0 ? 1.0 - turn : turn;
}

inline void raise(const double* base, int exponent, double* result) {
    double square[block_entries];
    std::copy_n(base, block_entries, square);
    std::fill_n(result, block_entries, 1.0);
    for (; exponent > 0; exponent >>= 1) {
        for (int t = 0; (exponent & 1) && t < block_entries; ++t) result[t] *= square[t];
        for (int t = 0; t < block_entries; ++t) square[t] *= square[t];
    }
}

// Of two vectors, to lie on one side of all `bits` planes in two of `tables` tables or more.
inline void chances(const double* cosine, int bits, int tables, double* chance) {
    double side[block_entries], same[block_entries], not_same[block_entries], others[block_entries];
    for (int t = 0; t < block_entries; ++t) side[t] = 1.0 - share_of_turn(cosine[t]);
    raise(side, bits, same);
    for (int t = 0; t < block_entries; ++t) not_same[t] = 1.0 - same[t];
    raise(not_same, tables - 1, others);  // none of all tables but one
    for (int t = 0; t < block_entries; ++t)
        chance[t] = std::clamp(1.0 - others[t] * not_same[t] - tables * same[t] * others[t], 0.0, 1.0);
}

// product[t] = q . k of the entries of a block, unscaled.
inline const float* sampling_bias(const Sampling& sampling, std::int64_t group, std::int64_t head, const float* product,
                                  const std::int32_t* entries, int count, float* bias) {
    constexpr float tiny = 1e-8F;
    const float* norm = sampling.norm.group(group);
    double cosine[block_entries] = {}, chance[block_entries];
    for (int t = 0; t < count; ++t) {
        const float off = norm[entries[t]], length = std::max(sampling.q_norm[head], tiny) * std::max(off, tiny);
        if (off > sampling.faint[head]) cosine[t] = std::clamp((product[t] - sampling.q_mean[head]) / length, -1.0F, 1.0F);
    }
    chances(cosine, sampling.bits, sampling.tables, chance);
    for (int t = 0; t < count; ++t) bias[t] = -std::log(static_cast<float>(chance[t]) + sampling.least);
    return bias;
}

}  // namespace longspan::LONGSPAN_ISA
