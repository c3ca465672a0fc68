// Partial attentions over disjoint parts become the attention over their union.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>

#include "longspan/merge_args.hpp"

namespace longspan::LONGSPAN_ISA {

inline void merge_row(const MergeArgs& args, std::int64_t row) {
    constexpr float empty = -std::numeric_limits<float>::infinity();
    float top = empty;
    for (const float* lse : args.lses)
        if (lse[row] > top || std::isnan(lse[row])) top = lse[row];  // NaN stays: nothing is larger
    float* out = args.out + row * args.head_size;
    std::fill_n(out, args.head_size, 0.0F);
    args.lse[row] = empty;
    if (top == empty) return;

    float total = 0.0F;
    for (const float* lse : args.lses) total += std::exp(lse[row] - top);
    for (std::size_t part = 0; part < args.outs.size(); ++part) {
        const float weight = std::exp(args.lses[part][row] - top) / total;
        if (weight == 0.0F) continue;
        const float* source = args.outs[part] + row * args.head_size;
        for (std::int64_t d = 0; d < args.head_size; ++d) out[d] += weight * source[d];
    }
    args.lse[row] = top + std::log(total);
}

inline void merge(const MergeArgs& args) {
    constexpr std::int64_t floats_worth_a_thread = 1 << 15;
    const bool parallel = args.threads > 1 && args.rows * args.head_size > floats_worth_a_thread;
#pragma omp parallel for schedule(static) num_threads(args.threads) if (parallel)
    for (std::int64_t row = 0; row < args.rows; ++row) merge_row(args, row);
}

}  // namespace longspan::LONGSPAN_ISA
