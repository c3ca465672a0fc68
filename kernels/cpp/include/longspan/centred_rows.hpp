// Stretches of tokens and their rows of keys or values, read as float32: the mean key of a group, and keys without it.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <stdexcept>
#include <vector>

#include "longspan/dtype.hpp"
#include "longspan/kmeans_args.hpp"

namespace longspan::LONGSPAN_ISA {

struct Span {
    std::int64_t begin, end;

    std::int64_t size() const { return end - begin; }
};

inline Span part_of(std::int64_t total, std::int64_t parts, std::int64_t part) {
    return {part * total / parts, (part + 1) * total / parts};
}

// row += from, converted; from may be of any storage type.
template <class T>
inline void add_row(const T* from, int head_size, float* row) {
    for (int d = 0; d < head_size; ++d) row[d] += to_float(from[d]);
}

template <class Body>
inline void for_rows(const RowsView& view, std::int64_t group, Span tokens, Body&& body) {
    with_storage(view.dtype, [&]<class T>(const T*) {
        const T* base = static_cast<const T*>(view.data) + group * view.group_stride;
        for (std::int64_t t = tokens.begin; t < tokens.end; ++t) body(t - tokens.begin, base + t * view.row_stride);
    });
}

// Mean key of each group; throws where a key is not finite.
inline std::vector<float> mean_keys(const KmeansArgs& args) {
    constexpr std::int64_t piece = 4096;
    const std::int64_t pieces = (args.tokens + piece - 1) / piece;
    const int width = args.head_size;
    std::vector<float> sums(args.groups * pieces * width, 0.0F), mean(args.groups * width, 0.0F);
#pragma omp parallel for schedule(dynamic, 1) num_threads(args.threads)
    for (std::int64_t item = 0; item < args.groups * pieces; ++item) {
        const std::int64_t begin = item % pieces * piece;
        for_rows(args.keys, item / pieces, {begin, std::min(begin + piece, args.tokens)},
                 [&](std::int64_t, auto* row) { add_row(row, width, &sums[item * width]); });
    }
    for (std::int64_t item = 0; item < args.groups * pieces; ++item)
        add_row(&sums[item * width], width, &mean[item / pieces * width]);
    for (float& element : mean) {
        element /= static_cast<float>(args.tokens);
        if (!std::isfinite(element))
            throw std::invalid_argument("keys hold NaN or infinity; clustering needs finite keys");
    }
    return mean;
}

inline std::vector<float> centred(const KmeansArgs& args, std::int64_t group, Span tokens, const float* mean) {
    const int width = args.head_size;
    std::vector<float> x(tokens.size() * width);
    for_rows(args.keys, group, tokens, [&](std::int64_t t, auto* row) {
        for (int d = 0; d < width; ++d) x[t * width + d] = to_float(row[d]) - mean[d];
    });
    return x;
}

}  // namespace longspan::LONGSPAN_ISA
