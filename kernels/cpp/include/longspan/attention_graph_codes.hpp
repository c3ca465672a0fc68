// The storage of the codes that a search reads.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>

#include "longspan/attention_graph_scores.hpp"

namespace longspan::LONGSPAN_ISA {

inline void encode(float value, float* out) { *out = value; }
inline void encode(float value, Bf16* out) { *out = to_bf16(value); }
inline void encode(float value, std::int8_t* out) {
    *out = static_cast<std::int8_t>(std::lrint(std::clamp(value, -127.0F, 127.0F)));
}
inline void encode(float value, F16* out) {
    // Scaling down and up again rounds to eleven bits; values are far from the ends of the range.
    const auto bits = std::bit_cast<std::uint32_t>(std::clamp(value, -65504.0F, 65504.0F));
    const std::uint32_t sign = bits >> 16 & 0x8000U;
    const float size = std::bit_cast<float>(bits & 0x7fffffffU);
    if (size < 0x1p-14F) {  // subnormal: multiples of 2^-24
        *out = {static_cast<std::uint16_t>(sign | static_cast<std::uint32_t>(std::lrint(size * 0x1p24F)))};
        return;
    }
    const std::uint32_t rounded = (bits & 0x7fffffffU) + 0xfffU + (bits >> 13 & 1U);
    *out = {static_cast<std::uint16_t>(sign | std::min((rounded - 0x38000000U) >> 13, 0x7bffU))};
}

// Appends codes of N nodes, node first + i having row row_of(i); norms are those of what is stored, so that nearness is
// consistent.
template <class RowOf>
inline void append_codes(AttentionGraph& graph, std::int64_t count, RowOf&& row_of) {
    const std::int64_t first = graph.tokens();
    graph.codes.resize(static_cast<std::size_t>((first + count) * graph.width) * bytes_of(graph.storage));
    graph.half_norms.resize(static_cast<std::size_t>(first + count));
    std::vector<float> decoded(static_cast<std::size_t>(graph.width));
    with_storage(graph.storage, [&](auto type) {
        using Code = std::remove_const_t<std::remove_pointer_t<decltype(type)>>;
        auto* codes = reinterpret_cast<Code*>(graph.codes.data()) + first * graph.width;
        for (std::int64_t t = 0; t < count; ++t) {
            const float* row = row_of(t);
            for (int w = 0; w < graph.width; ++w) encode(row[w] / graph.step[w], codes + t * graph.width + w);
            decode_row<Code>(graph, static_cast<std::uint32_t>(first + t), decoded.data());
            graph.half_norms[first + t] = 0.5F * product(decoded.data(), decoded.data(), graph.width);
        }
    });
}

// int8 steps follow the range of each column: a column's rounding error then is in proportion to its own spread.
inline void write_codes(AttentionGraph& graph, const float* rows, std::int64_t count) {
    graph.step.assign(static_cast<std::size_t>(graph.width), 1.0F);
    if (graph.storage == Dtype::i8) {
        std::vector<float> largest(static_cast<std::size_t>(graph.width), 0.0F);
        for (std::int64_t t = 0; t < count; ++t)
            for (int w = 0; w < graph.width; ++w) largest[w] = std::max(largest[w], std::abs(rows[t * graph.width + w]));
        for (int w = 0; w < graph.width; ++w)
            if (largest[w] > 127.0F * std::numeric_limits<float>::min()) graph.step[w] = largest[w] / 127.0F;
    }
    graph.codes.clear();
    graph.half_norms.clear();
    append_codes(graph, count, [&](std::int64_t node) { return rows + std::int64_t{graph.token_of[node]} * graph.width; });
}

}  // namespace longspan::LONGSPAN_ISA
