// Eight floats in two 128-bit registers, of which there are 32: as many sums are held as on AVX2.
#pragma once

#include <arm_neon.h>

#include <cstdint>

#include "longspan/dtype.hpp"

namespace longspan::LONGSPAN_ISA {

struct Vec {
    static constexpr int lanes = 8;
    float32x4_t low, high;
};

// Both halves of `some`, through `each`.
template <class Each, class... Some>
inline Vec halves(Each&& each, Some... some) {
    return {each(some.low...), each(some.high...)};
}

inline Vec broadcast(float value) { return {vdupq_n_f32(value), vdupq_n_f32(value)}; }
inline Vec load(const float* from) { return {vld1q_f32(from), vld1q_f32(from + 4)}; }
inline Vec load(const F16* from) {
    const float16x8_t narrow = vreinterpretq_f16_u16(vld1q_u16(reinterpret_cast<const std::uint16_t*>(from)));
    return {vcvt_f32_f16(vget_low_f16(narrow)), vcvt_high_f32_f16(narrow)};
}
inline Vec load(const Bf16* from) {
    const uint16x8_t narrow = vld1q_u16(reinterpret_cast<const std::uint16_t*>(from));
    return {vreinterpretq_f32_u32(vshll_n_u16(vget_low_u16(narrow), 16)),
            vreinterpretq_f32_u32(vshll_high_n_u16(narrow, 16))};
}
inline Vec load(const std::int8_t* from) {
    const int16x8_t wide = vmovl_s8(vld1_s8(from));
    return {vcvtq_f32_s32(vmovl_s16(vget_low_s16(wide))), vcvtq_f32_s32(vmovl_high_s16(wide))};
}
inline void store(float* to, Vec a) {
    vst1q_f32(to, a.low);
    vst1q_f32(to + 4, a.high);
}

inline Vec operator+(Vec a, Vec b) { return halves([](auto x, auto y) { return vaddq_f32(x, y); }, a, b); }
inline Vec operator-(Vec a, Vec b) { return halves([](auto x, auto y) { return vsubq_f32(x, y); }, a, b); }
inline Vec operator*(Vec a, Vec b) { return halves([](auto x, auto y) { return vmulq_f32(x, y); }, a, b); }
inline Vec operator/(Vec a, Vec b) { return halves([](auto x, auto y) { return vdivq_f32(x, y); }, a, b); }
inline Vec fma(Vec a, Vec b, Vec c) {
    return halves([](auto x, auto y, auto z) { return vfmaq_f32(z, x, y); }, a, b, c);
}

// `x` where a > b, `y` elsewhere.
inline Vec where_greater(Vec a, Vec b, Vec x, Vec y) {
    return halves([](auto p, auto q, auto r, auto s) { return vbslq_f32(vcgtq_f32(p, q), r, s); }, a, b, x, y);
}
// `b` where either is NaN, as x86 has it.
inline Vec max(Vec a, Vec b) { return where_greater(a, b, a, b); }
inline Vec round(Vec a) { return halves([](auto x) { return vrndnq_f32(x); }, a); }

inline float sum(Vec a) { return vaddvq_f32(vaddq_f32(a.low, a.high)); }
inline float max(Vec a) { return vmaxnmvq_f32(vmaxnmq_f32(a.low, a.high)); }

// Bit i: whether lane i is above 0.
inline std::uint32_t positive(Vec a) {
    constexpr std::uint32_t bits[] = {1, 2, 4, 8, 16, 32, 64, 128};
    const uint32x4_t low = vandq_u32(vcgtzq_f32(a.low), vld1q_u32(bits));
    const uint32x4_t high = vandq_u32(vcgtzq_f32(a.high), vld1q_u32(bits + 4));
    return vaddvq_u32(vorrq_u32(low, high));
}

// 2^n for whole n in [-126, 127]; 0 for n = -127.
inline Vec power_of_two(Vec n) {
    return halves([](auto x) { return vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(vcvtq_s32_f32(x), vdupq_n_s32(127)), 23)); }, n);
}
// 0 where x < bound, `a` elsewhere (also where x is NaN).
inline Vec zero_below(Vec x, float bound, Vec a) {
    const auto each = [bound](auto y, auto b) {
        return vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(b), vcltq_f32(y, vdupq_n_f32(bound))));
    };
    return halves(each, x, a);
}

// Lane i of the result is the sum of all lanes of tile[i].
inline Vec sums(const Vec (&tile)[Vec::lanes]) {
    const auto half = [&tile](int i) { return vaddq_f32(tile[i].low, tile[i].high); };
    const auto four = [&half](int i) {
        return vpaddq_f32(vpaddq_f32(half(i), half(i + 1)), vpaddq_f32(half(i + 2), half(i + 3)));
    };
    return {four(0), four(4)};
}

#if defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
#define LONGSPAN_PAIRS
// Sixteen bfloat16; lane i of a sum takes in elements 2 i and 2 i + 1.
struct Pairs {
    bfloat16x8_t low, high;
};

// The first `count` elements, 8 or more, zeros beyond.
inline Pairs load_pairs(const Bf16* from, int count) {
    const auto* bits = reinterpret_cast<const std::uint16_t*>(from);
    const uint16x8_t beyond = count < 16 ? vdupq_n_u16(0) : vld1q_u16(bits + 8);
    return {vreinterpretq_bf16_u16(vld1q_u16(bits)), vreinterpretq_bf16_u16(beyond)};
}
inline Vec fma(Pairs a, Pairs b, Vec c) { return {vbfdotq_f32(c.low, a.low, b.low), vbfdotq_f32(c.high, a.high, b.high)}; }
#endif

}  // namespace longspan::LONGSPAN_ISA
