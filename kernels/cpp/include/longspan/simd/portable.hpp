// Four floats in the compiler's own vector type, for CPUs without a path of their own.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "longspan/dtype.hpp"

namespace longspan::LONGSPAN_ISA {

using Lanes = float __attribute__((vector_size(16)));

struct Vec {
    static constexpr int lanes = 4;
    Lanes value;
};

inline Vec broadcast(float value) { return {Lanes{value, value, value, value}}; }
inline Vec load(const float* from) {
    Vec result;
    std::memcpy(&result.value, from, sizeof(result.value));
    return result;
}
template <class T>
inline Vec load(const T* from) {
    return {Lanes{to_float(from[0]), to_float(from[1]), to_float(from[2]), to_float(from[3])}};
}
inline void store(float* to, Vec a) { std::memcpy(to, &a.value, sizeof(a.value)); }

inline Vec operator+(Vec a, Vec b) { return {a.value + b.value}; }
inline Vec operator-(Vec a, Vec b) { return {a.value - b.value}; }
inline Vec operator*(Vec a, Vec b) { return {a.value * b.value}; }
inline Vec operator/(Vec a, Vec b) { return {a.value / b.value}; }
// a * b + c, not necessarily fused here.
inline Vec fma(Vec a, Vec b, Vec c) { return {a.value * b.value + c.value}; }
// `b` where either is NaN, as x86 has it.
inline Vec max(Vec a, Vec b) { return {a.value > b.value ? a.value : b.value}; }
inline Vec round(Vec a) {
    for (int i = 0; i < Vec::lanes; ++i) a.value[i] = std::nearbyint(a.value[i]);
    return a;
}
inline float sum(Vec a) { return (a.value[0] + a.value[2]) + (a.value[1] + a.value[3]); }
inline float max(Vec a) { return std::max(std::max(a.value[0], a.value[2]), std::max(a.value[1], a.value[3])); }

// `x` where a > b, `y` elsewhere.
inline Vec where_greater(Vec a, Vec b, Vec x, Vec y) { return {a.value > b.value ? x.value : y.value}; }

// Bit i: whether lane i is above 0.
inline std::uint32_t positive(Vec a) {
    std::uint32_t bits = 0;
    for (int i = 0; i < Vec::lanes; ++i) bits |= static_cast<std::uint32_t>(a.value[i] > 0.0F) << i;
    return bits;
}

// 2^n for whole n in [-126, 127]; 0 for n = -127 and NaN.
inline Vec power_of_two(Vec n) {
    for (int i = 0; i < Vec::lanes; ++i) {
        const std::int32_t biased = n.value[i] >= -127.0F ? static_cast<std::int32_t>(n.value[i]) + 127 : 0;
        n.value[i] = std::bit_cast<float>(biased << 23);
    }
    return n;
}
// 0 where x < bound, `a` elsewhere (also where x is NaN).
inline Vec zero_below(Vec x, float bound, Vec a) {
    return {x.value < broadcast(bound).value ? broadcast(0.0F).value : a.value};
}

// Lane i of the result is the sum of all lanes of tile[i].
inline Vec sums(const Vec (&tile)[Vec::lanes]) { return {Lanes{sum(tile[0]), sum(tile[1]), sum(tile[2]), sum(tile[3])}}; }

}  // namespace longspan::LONGSPAN_ISA
