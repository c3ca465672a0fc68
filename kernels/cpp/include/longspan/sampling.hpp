// The bias of tokens that were sampled by hash tables: -ln(u + least), u being how likely a token was to be sampled.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numbers>

#include "longspan/decode_args.hpp"

namespace longspan::LONGSPAN_ISA {

inline double power(double base, int exponent) {
    double result = 1.0;
    for (; exponent > 0; exponent >>= 1, base *= base)
        if (exponent & 1) result *= base;
    return result;
}

// Of two vectors, to lie on one side of all `bits` planes in two of `tables` tables or more.
inline double chance_of(double cosine, int bits, int tables) {
    const double same = power(1.0 - std::acos(std::clamp(cosine, -1.0, 1.0)) / std::numbers::pi, bits);
    const double others = power(1.0 - same, tables - 1);  // none of all tables but one
    return std::clamp(1.0 - others * (1.0 - same) - tables * same * others, 0.0, 1.0);
}

// product[t] = q . k of the entries of a block, unscaled.
inline const float* sampling_bias(const Sampling& sampling, std::int64_t group, std::int64_t head, const float* product,
                                  const std::int32_t* entries, int count, float* bias) {
    constexpr float tiny = 1e-8F;
    const float* norm = sampling.norm.group(group);
    for (int t = 0; t < count; ++t) {
        const float length = std::max(sampling.q_norm[head], tiny) * std::max(norm[entries[t]], tiny);
        const double chance = chance_of((product[t] - sampling.q_mean[head]) / length, sampling.bits, sampling.tables);
        bias[t] = -std::log(static_cast<float>(chance) + sampling.least);
    }
    return bias;
}

}  // namespace longspan::LONGSPAN_ISA
