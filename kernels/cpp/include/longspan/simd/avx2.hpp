// Eight floats in a 256-bit register.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "longspan/dtype.hpp"

namespace longspan::LONGSPAN_ISA {

struct Vec {
    static constexpr int lanes = 8;
    __m256 value;
};

inline Vec broadcast(float value) { return {_mm256_set1_ps(value)}; }
inline Vec load(const float* from) { return {_mm256_loadu_ps(from)}; }
inline Vec load(const F16* from) {
    return {_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)))};
}
inline Vec load(const Bf16* from) {
    const __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
    return {_mm256_castsi256_ps(_mm256_slli_epi32(wide, 16))};
}
inline Vec load(const std::int8_t* from) {
    return {_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from))))};
}
inline void store(float* to, Vec a) { _mm256_storeu_ps(to, a.value); }

inline Vec operator+(Vec a, Vec b) { return {_mm256_add_ps(a.value, b.value)}; }
inline Vec operator-(Vec a, Vec b) { return {_mm256_sub_ps(a.value, b.value)}; }
inline Vec operator*(Vec a, Vec b) { return {_mm256_mul_ps(a.value, b.value)}; }
inline Vec operator/(Vec a, Vec b) { return {_mm256_div_ps(a.value, b.value)}; }
inline Vec fma(Vec a, Vec b, Vec c) { return {_mm256_fmadd_ps(a.value, b.value, c.value)}; }
// `b` where either is NaN.
inline Vec max(Vec a, Vec b) { return {_mm256_max_ps(a.value, b.value)}; }
inline Vec round(Vec a) { return {_mm256_round_ps(a.value, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)}; }

inline float sum(Vec a) {
    __m128 half = _mm_add_ps(_mm256_castps256_ps128(a.value), _mm256_extractf128_ps(a.value, 1));
    half = _mm_add_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_add_ss(half, _mm_movehdup_ps(half)));
}
inline float max(Vec a) {
    __m128 half = _mm_max_ps(_mm256_castps256_ps128(a.value), _mm256_extractf128_ps(a.value, 1));
    half = _mm_max_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_max_ss(half, _mm_movehdup_ps(half)));
}

// `x` where a > b, `y` elsewhere.
inline Vec where_greater(Vec a, Vec b, Vec x, Vec y) {
    return {_mm256_blendv_ps(y.value, x.value, _mm256_cmp_ps(a.value, b.value, _CMP_GT_OQ))};
}

// Bit i: whether lane i is above 0.
inline std::uint32_t positive(Vec a) {
    return static_cast<std::uint32_t>(_mm256_movemask_ps(_mm256_cmp_ps(a.value, _mm256_setzero_ps(), _CMP_GT_OQ)));
}

// 2^n for whole n in [-126, 127]; 0 for n = -127.
inline Vec power_of_two(Vec n) {
    const __m256i biased = _mm256_add_epi32(_mm256_cvtps_epi32(n.value), _mm256_set1_epi32(127));
    return {_mm256_castsi256_ps(_mm256_slli_epi32(biased, 23))};
}
// 0 where x < bound, `a` elsewhere (also where x is NaN).
inline Vec zero_below(Vec x, float bound, Vec a) {
    return {_mm256_andnot_ps(_mm256_cmp_ps(x.value, _mm256_set1_ps(bound), _CMP_LT_OQ), a.value)};
}

// Lane i of the result is the sum of all lanes of tile[i].
inline Vec sums(const Vec (&tile)[Vec::lanes]) {
    const auto pair = [](Vec a, Vec b) { return _mm256_hadd_ps(a.value, b.value); };
    const __m256 low = _mm256_hadd_ps(pair(tile[0], tile[1]), pair(tile[2], tile[3]));
    const __m256 high = _mm256_hadd_ps(pair(tile[4], tile[5]), pair(tile[6], tile[7]));
    return {_mm256_add_ps(_mm256_permute2f128_ps(low, high, 0x20), _mm256_permute2f128_ps(low, high, 0x31))};
}

}  // namespace longspan::LONGSPAN_ISA
