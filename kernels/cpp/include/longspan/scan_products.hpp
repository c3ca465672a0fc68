// Products of queries with four codes; of four queries together, so that each code is widened once for all of them.
#pragma once

#include <cstdint>

#include "longspan/attention_graph_scores.hpp"

namespace longspan::LONGSPAN_ISA {

inline constexpr int scanned_together = 4;

// scores[r] = unit * query . rows[r]
inline void scan_one(const std::int16_t* query, float unit, const std::int8_t* const* rows, int width, float* scores) {
    std::int32_t products[4];
    four_products(query, rows, width, products);
    for (int r = 0; r < 4; ++r) scores[r] = static_cast<float>(products[r]) * unit;
}

// scores[q][r] = units[q] * queries[q] . rows[r]
#if defined(__AVX512BW__)
inline void scan_products(const std::int16_t* const* queries, const float* units, const std::int8_t* const* rows, int width,
                          float* const* scores) {
    __m512i total[4][4] = {};
    for (int w = 0; w < width; w += 32) {
        __m512i code[4];
#pragma GCC unroll 4
        for (int r = 0; r < 4; ++r) code[r] = _mm512_cvtepi8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(rows[r] + w)));
#pragma GCC unroll 4
        for (int q = 0; q < 4; ++q) {
            const __m512i weights = _mm512_loadu_si512(queries[q] + w);
#pragma GCC unroll 4
            for (int r = 0; r < 4; ++r) total[q][r] = _mm512_add_epi32(total[q][r], _mm512_madd_epi16(code[r], weights));
        }
    }
    const auto fold = [](__m512i a, __m512i b) {
        return _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
    };
    const auto halve = [](__m512i a, __m512i b) {
        return _mm512_add_epi32(_mm512_shuffle_i32x4(a, b, 0x88), _mm512_shuffle_i32x4(a, b, 0xdd));
    };
    __m512i row[4];  // four parts of the four rows' sums
#pragma GCC unroll 4
    for (int q = 0; q < 4; ++q) {
        const __m512i low = fold(total[q][0], total[q][1]), high = fold(total[q][2], total[q][3]);
        row[q] = _mm512_add_epi32(_mm512_unpacklo_epi64(low, high), _mm512_unpackhi_epi64(low, high));
    }
    const __m512 sums = _mm512_cvtepi32_ps(halve(halve(row[0], row[1]), halve(row[2], row[3])));
    _mm_storeu_ps(scores[0], _mm_mul_ps(_mm512_castps512_ps128(sums), _mm_set1_ps(units[0])));
    _mm_storeu_ps(scores[1], _mm_mul_ps(_mm512_extractf32x4_ps(sums, 1), _mm_set1_ps(units[1])));
    _mm_storeu_ps(scores[2], _mm_mul_ps(_mm512_extractf32x4_ps(sums, 2), _mm_set1_ps(units[2])));
    _mm_storeu_ps(scores[3], _mm_mul_ps(_mm512_extractf32x4_ps(sums, 3), _mm_set1_ps(units[3])));
}
#elif defined(__AVX2__)
inline void scan_products(const std::int16_t* const* queries, const float* units, const std::int8_t* const* rows, int width,
                          float* const* scores) {
    for (int first = 0; first < 4; first += 2) {  // the registers hold the sums of two
        __m256i total[2][4] = {};
        for (int w = 0; w < width; w += 16) {
            __m256i code[4];
#pragma GCC unroll 4
            for (int r = 0; r < 4; ++r) code[r] = _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(rows[r] + w)));
#pragma GCC unroll 2
            for (int q = 0; q < 2; ++q) {
                const __m256i weights = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(queries[first + q] + w));
#pragma GCC unroll 4
                for (int r = 0; r < 4; ++r) total[q][r] = _mm256_add_epi32(total[q][r], _mm256_madd_epi16(code[r], weights));
            }
        }
#pragma GCC unroll 2
        for (int q = 0; q < 2; ++q) {
            const __m256i all = _mm256_hadd_epi32(_mm256_hadd_epi32(total[q][0], total[q][1]),
                                                  _mm256_hadd_epi32(total[q][2], total[q][3]));
            const __m128i sums = _mm_add_epi32(_mm256_castsi256_si128(all), _mm256_extracti128_si256(all, 1));
            _mm_storeu_ps(scores[first + q], _mm_mul_ps(_mm_cvtepi32_ps(sums), _mm_set1_ps(units[first + q])));
        }
    }
}
#else
inline void scan_products(const std::int16_t* const* queries, const float* units, const std::int8_t* const* rows, int width,
                          float* const* scores) {
    for (int q = 0; q < 4; ++q) scan_one(queries[q], units[q], rows, width, scores[q]);
}
#endif

}  // namespace longspan::LONGSPAN_ISA
