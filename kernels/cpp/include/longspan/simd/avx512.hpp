// Sixteen floats in a 512-bit register.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "longspan/dtype.hpp"

namespace longspan::LONGSPAN_ISA {

struct Vec {
    static constexpr int lanes = 16;
    __m512 value;
};

inline Vec widen(__m128i bytes) { return {_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes))}; }
inline Vec widen_bf16(__m256i halves) {
    return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16))};
}

inline Vec broadcast(float value) { return {_mm512_set1_ps(value)}; }
inline Vec load(const float* from) { return {_mm512_loadu_ps(from)}; }
inline Vec load(const F16* from) {
    return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)))};
}
inline Vec load(const Bf16* from) {
    return widen_bf16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
}
inline Vec load(const std::int8_t* from) { return widen(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))); }

// Eight elements and eight zeros, for head sizes that are not multiples of 16.
inline Vec load_half(const float* from) { return {_mm512_zextps256_ps512(_mm256_loadu_ps(from))}; }
inline Vec load_half(const F16* from) {
    return {_mm512_zextps256_ps512(_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))))};
}
inline Vec load_half(const Bf16* from) {
    return widen_bf16(_mm256_zextsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))));
}
inline Vec load_half(const std::int8_t* from) {
    return widen(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from)));
}
inline void store(float* to, Vec a) { _mm512_storeu_ps(to, a.value); }

inline Vec operator+(Vec a, Vec b) { return {_mm512_add_ps(a.value, b.value)}; }
inline Vec operator-(Vec a, Vec b) { return {_mm512_sub_ps(a.value, b.value)}; }
inline Vec operator*(Vec a, Vec b) { return {_mm512_mul_ps(a.value, b.value)}; }
inline Vec operator/(Vec a, Vec b) { return {_mm512_div_ps(a.value, b.value)}; }
inline Vec fma(Vec a, Vec b, Vec c) { return {_mm512_fmadd_ps(a.value, b.value, c.value)}; }
// `b` where either is NaN.
inline Vec max(Vec a, Vec b) { return {_mm512_max_ps(a.value, b.value)}; }
inline Vec round(Vec a) { return {_mm512_roundscale_ps(a.value, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)}; }
inline float sum(Vec a) { return _mm512_reduce_add_ps(a.value); }
inline float max(Vec a) { return _mm512_reduce_max_ps(a.value); }

// `x` where a > b, `y` elsewhere.
inline Vec where_greater(Vec a, Vec b, Vec x, Vec y) {
    return {_mm512_mask_mov_ps(y.value, _mm512_cmp_ps_mask(a.value, b.value, _CMP_GT_OQ), x.value)};
}

// Bit i: whether lane i is above 0.
inline std::uint32_t positive(Vec a) { return _mm512_cmp_ps_mask(a.value, _mm512_setzero_ps(), _CMP_GT_OQ); }

// 2^n for whole n in [-126, 127]; 0 for n = -127.
inline Vec power_of_two(Vec n) {
    const __m512i biased = _mm512_add_epi32(_mm512_cvtps_epi32(n.value), _mm512_set1_epi32(127));
    return {_mm512_castsi512_ps(_mm512_slli_epi32(biased, 23))};
}
// 0 where x < bound, `a` elsewhere (also where x is NaN).
inline Vec zero_below(Vec x, float bound, Vec a) {
    return {_mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x.value, _mm512_set1_ps(bound), _CMP_NLT_UQ), a.value)};
}

#if defined(__AVX512BF16__)
#define LONGSPAN_PAIRS
// Thirty-two bfloat16; lane i of a sum takes in elements 2 i and 2 i + 1.
struct Pairs {
    __m512bh value;
};

// The first `count` elements, zeros beyond.
inline Pairs load_pairs(const Bf16* from, int count) {
    const __mmask32 mask = count < 32 ? (1U << count) - 1 : ~0U;
    return {reinterpret_cast<__m512bh>(_mm512_maskz_loadu_epi16(mask, from))};
}
inline Vec fma(Pairs a, Pairs b, Vec c) { return {_mm512_dpbf16_ps(c.value, a.value, b.value)}; }
#endif

inline __m512 fold_singles(Vec a, Vec b) {
    return _mm512_add_ps(_mm512_unpacklo_ps(a.value, b.value), _mm512_unpackhi_ps(a.value, b.value));
}
inline __m512 fold_pairs(__m512 a, __m512 b) {
    const __m512d x = _mm512_castps_pd(a), y = _mm512_castps_pd(b);
    return _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(x, y)), _mm512_castpd_ps(_mm512_unpackhi_pd(x, y)));
}
inline __m512 fold_quads(__m512 a, __m512 b) {
    return _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xdd));
}

// Lane i of the result is the sum of all lanes of tile[i].
inline Vec sums(const Vec (&tile)[Vec::lanes]) {
    __m512 quad[4];
    for (int i = 0; i < 4; ++i)
        quad[i] = fold_pairs(fold_singles(tile[4 * i], tile[4 * i + 1]), fold_singles(tile[4 * i + 2], tile[4 * i + 3]));
    return {fold_quads(fold_quads(quad[0], quad[1]), fold_quads(quad[2], quad[3]))};
}

}  // namespace longspan::LONGSPAN_ISA
