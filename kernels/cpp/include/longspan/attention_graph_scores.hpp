// Scores of a query, or nearness of a key, for a handful of nodes scattered over the codes.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "longspan/attention_graph_args.hpp"
#include "longspan/simd.hpp"

namespace longspan::LONGSPAN_ISA {

inline void prefetch_row(const void* row, int bytes) {
    for (int at = 0; at < bytes; at += 64) prefetch(static_cast<const char*>(row) + at);
}

// out[W] = vector[D] map[D, W]
inline void apply_map(const float* vector, const float* map, int head_size, int width, float* out) {
    std::fill_n(out, width, 0.0F);
    for (int d = 0; d < head_size; ++d) {
        const Vec factor = broadcast(vector[d]);
        for (int w = 0; w < width; w += Vec::lanes)
            store(out + w, fma(factor, load(map + static_cast<std::int64_t>(d) * width + w), load(out + w)));
    }
}

inline float squared_distance(const float* a, const float* b, int width) {
    Vec even = broadcast(0.0F), odd = broadcast(0.0F);
    for (int w = 0; w < width; w += 2 * Vec::lanes) {
        const Vec near = load(a + w) - load(b + w), far = load(a + w + Vec::lanes) - load(b + w + Vec::lanes);
        even = fma(near, near, even);
        odd = fma(far, far, odd);
    }
    return sum(even + odd);
}

template <class T>
inline float product(const float* a, const T* b, int size) {
    float tail = 0.0F;
    int d = 0;
    Vec total = broadcast(0.0F);
    for (; d + Vec::lanes <= size; d += Vec::lanes) total = fma(load(a + d), load(b + d), total);
    for (; d < size; ++d) tail += a[d] * to_float(b[d]);
    return sum(total) + tail;
}

// A query in the units of the codes.
struct CodedQuery {
    std::vector<float> weights;           // [W]
    std::vector<std::int16_t> quantised;  // [W], for int8 codes: weights / unit
    float unit = 1.0F;
};

inline constexpr float least_query = 1e-30F;  // of a weight: below it all are 0, as their unit would lose its digits

inline void quantise_query(CodedQuery& query) {
    float largest = 0.0F;
    for (float weight : query.weights) largest = std::max(largest, std::abs(weight));
    // Sums of W products of 127 at most stay within 31 bits.
    const float limit = std::min(32767.0F, 16777216.0F / static_cast<float>(query.weights.size()));
    query.unit = largest > least_query ? largest / limit : 1.0F;
    query.quantised.resize(query.weights.size());
    for (std::size_t w = 0; w < query.weights.size(); ++w)
        query.quantised[w] = static_cast<std::int16_t>(std::lrint(query.weights[w] / query.unit));
}

#if defined(__AVX512BW__)
inline void four_products(const std::int16_t* query, const std::int8_t* const* rows, int width, std::int32_t* out) {
    __m512i total[4] = {};
    for (int w = 0; w < width; w += 32) {
        const __m512i weights = _mm512_loadu_si512(query + w);
        for (int r = 0; r < 4; ++r) {
            const __m512i code = _mm512_cvtepi8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(rows[r] + w)));
            total[r] = _mm512_add_epi32(total[r], _mm512_madd_epi16(code, weights));
        }
    }
    const auto fold = [](__m512i a, __m512i b) {
        return _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
    };
    const __m512i low = fold(total[0], total[1]), high = fold(total[2], total[3]);
    const __m512i all = _mm512_add_epi32(_mm512_unpacklo_epi64(low, high), _mm512_unpackhi_epi64(low, high));
    const __m256i half = _mm256_add_epi32(_mm512_castsi512_si256(all), _mm512_extracti64x4_epi64(all, 1));
    const __m128i sums = _mm_add_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out), sums);
}
#elif defined(__AVX2__)
inline void four_products(const std::int16_t* query, const std::int8_t* const* rows, int width, std::int32_t* out) {
    __m256i total[4] = {};
    for (int w = 0; w < width; w += 16) {
        const __m256i weights = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(query + w));
        for (int r = 0; r < 4; ++r) {
            const __m256i code = _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(rows[r] + w)));
            total[r] = _mm256_add_epi32(total[r], _mm256_madd_epi16(code, weights));
        }
    }
    const __m256i all = _mm256_hadd_epi32(_mm256_hadd_epi32(total[0], total[1]), _mm256_hadd_epi32(total[2], total[3]));
    const __m128i sums = _mm_add_epi32(_mm256_castsi256_si128(all), _mm256_extracti128_si256(all, 1));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out), sums);
}
#elif defined(LONGSPAN_NEON)
inline void four_products(const std::int16_t* query, const std::int8_t* const* rows, int width, std::int32_t* out) {
    int32x4_t total[4] = {};
    for (int w = 0; w < width; w += 8) {
        const int16x8_t weights = vld1q_s16(query + w);
        for (int r = 0; r < 4; ++r) {
            const int16x8_t code = vmovl_s8(vld1_s8(rows[r] + w));
            total[r] = vmlal_s16(total[r], vget_low_s16(code), vget_low_s16(weights));
            total[r] = vmlal_high_s16(total[r], code, weights);
        }
    }
    vst1q_s32(out, vpaddq_s32(vpaddq_s32(total[0], total[1]), vpaddq_s32(total[2], total[3])));
}
#else
inline void four_products(const std::int16_t* query, const std::int8_t* const* rows, int width, std::int32_t* out) {
    for (int r = 0; r < 4; ++r) {
        std::int32_t total = 0;
        for (int w = 0; w < width; ++w) total += std::int32_t{query[w]} * rows[r][w];
        out[r] = total;
    }
}
#endif

// out[i] = query . code of nodes[i]
template <class T>
inline void score_nodes(const CodedQuery& query, const T* codes, int width, const std::uint32_t* nodes, int count,
                        float* out) {
    for (int i = 0; i < count; ++i)
        out[i] = product(query.weights.data(), codes + static_cast<std::int64_t>(nodes[i]) * width, width);
}

inline void score_nodes(const CodedQuery& query, const std::int8_t* codes, int width, const std::uint32_t* nodes,
                        int count, float* out) {
    for (int i = 0; i < count; i += 4) {
        const std::int8_t* rows[4];
        std::int32_t products[4];
        for (int r = 0; r < 4; ++r) rows[r] = codes + static_cast<std::int64_t>(nodes[std::min(i + r, count - 1)]) * width;
        four_products(query.quantised.data(), rows, width, products);
        for (int r = 0; r < 4 && i + r < count; ++r) out[i + r] = static_cast<float>(products[r]) * query.unit;
    }
}

template <class T>
inline void decode_row(const AttentionGraph& graph, std::uint32_t node, float* out) {
    const T* row = reinterpret_cast<const T*>(graph.codes.data()) + static_cast<std::int64_t>(node) * graph.width;
    for (int w = 0; w < graph.width; w += Vec::lanes) store(out + w, load(row + w) * load(graph.step.data() + w));
}

}  // namespace longspan::LONGSPAN_ISA
