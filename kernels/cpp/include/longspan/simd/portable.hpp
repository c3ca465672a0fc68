// Eight floats in plain C++, for CPUs without a path of their own; the compiler vectorises what it can.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>

#include "longspan/dtype.hpp"

namespace longspan::LONGSPAN_ISA {

struct Vec {
    static constexpr int lanes = 8;
    float lane[lanes];
};

template <class Op>
inline Vec lanewise(Op op) {
    Vec result;
    for (int i = 0; i < Vec::lanes; ++i) result.lane[i] = op(i);
    return result;
}

inline Vec broadcast(float value) {
    return lanewise([=](int) { return value; });
}
template <class T>
inline Vec load(const T* from) {
    return lanewise([=](int i) { return to_float(from[i]); });
}
inline void store(float* to, Vec a) { std::copy_n(a.lane, Vec::lanes, to); }

inline Vec operator+(Vec a, Vec b) {
    return lanewise([&](int i) { return a.lane[i] + b.lane[i]; });
}
inline Vec operator-(Vec a, Vec b) {
    return lanewise([&](int i) { return a.lane[i] - b.lane[i]; });
}
inline Vec operator*(Vec a, Vec b) {
    return lanewise([&](int i) { return a.lane[i] * b.lane[i]; });
}
inline Vec operator/(Vec a, Vec b) {
    return lanewise([&](int i) { return a.lane[i] / b.lane[i]; });
}
// a * b + c, not necessarily fused here.
inline Vec fma(Vec a, Vec b, Vec c) { return a * b + c; }
// `b` where either is NaN, as x86 has it.
inline Vec max(Vec a, Vec b) {
    return lanewise([&](int i) { return a.lane[i] > b.lane[i] ? a.lane[i] : b.lane[i]; });
}
inline Vec round(Vec a) {
    return lanewise([&](int i) { return std::nearbyint(a.lane[i]); });
}
inline float sum(Vec a) {
    float total = 0.0F;
    for (float lane : a.lane) total += lane;
    return total;
}
inline float max(Vec a) { return *std::max_element(a.lane, a.lane + Vec::lanes); }

// `x` where a > b, `y` elsewhere.
inline Vec where_greater(Vec a, Vec b, Vec x, Vec y) {
    return lanewise([&](int i) { return a.lane[i] > b.lane[i] ? x.lane[i] : y.lane[i]; });
}

// 2^n for whole n in [-126, 127]; 0 for n = -127 and NaN.
inline Vec power_of_two(Vec n) {
    return lanewise([&](int i) {
        const std::int32_t biased = n.lane[i] >= -127.0F ? static_cast<std::int32_t>(n.lane[i]) + 127 : 0;
        return std::bit_cast<float>(biased << 23);
    });
}
// 0 where x < bound, `a` elsewhere (also where x is NaN).
inline Vec zero_below(Vec x, float bound, Vec a) {
    return lanewise([&](int i) { return x.lane[i] < bound ? 0.0F : a.lane[i]; });
}

// Lane i of the result is the sum of all lanes of tile[i].
inline Vec sums(const Vec (&tile)[Vec::lanes]) {
    return lanewise([&](int i) { return sum(tile[i]); });
}

}  // namespace longspan::LONGSPAN_ISA
