// The nodes that every search of a graph begins with.
#pragma once

#include <algorithm>
#include <cmath>
#include <numeric>
#include <queue>
#include <utility>
#include <vector>

#include "longspan/attention_graph_clusters.hpp"
#include "longspan/simd.hpp"

namespace longspan::LONGSPAN_ISA {

// One over each column's standard deviation: a direction in which few keys differ, a needle's, counts beside those in
// which all do. Columns without spread count as those with a ten-thousandth of the widest.
inline std::vector<float> column_weights(const float* rows, std::int64_t count, int width) {
    std::vector<double> sum(static_cast<std::size_t>(width)), square(sum);
    for (std::int64_t t = 0; t < count; ++t)
        for (int w = 0; w < width; ++w) {
            const double value = rows[t * width + w];
            sum[w] += value;
            square[w] += value * value;
        }
    std::vector<double> spread(sum.size());
    for (int w = 0; w < width; ++w)
        spread[w] = std::sqrt(std::max(0.0, square[w] - sum[w] * sum[w] / static_cast<double>(count)));
    const double least = 1e-4 * *std::max_element(spread.begin(), spread.end());
    std::vector<float> weights(sum.size(), 1.0F);
    for (int w = 0; w < width; ++w)
        if (least > 0.0) weights[w] = static_cast<float>(std::sqrt(static_cast<double>(count)) / std::max(least, spread[w]));
    return weights;
}

// Squared distance, each column by its weight.
inline float weighed_distance(const float* a, const float* b, const float* weights, int width) {
    Vec total = broadcast(0.0F);
    for (int w = 0; w < width; w += Vec::lanes) {
        const Vec apart = load(a + w) - load(b + w);
        total = fma(apart * load(weights + w), apart, total);
    }
    return sum(total);
}

// Keys that lie far from each other and from the mean: each the farthest from those before it (Gonzalez 1985). A walk
// comes upon a few keys apart from all others from nowhere else, and they may be what a query looks for. A distance only
// falls as keys are chosen, so an old one is an upper bound, and only the largest are brought up to date.
inline std::vector<std::uint32_t> choose_entries(const float* rows, std::int64_t count, int width, std::int64_t wanted) {
    const std::vector<float> weights = column_weights(rows, count, width);
    const auto row = [&](std::uint32_t t) { return rows + static_cast<std::int64_t>(t) * width; };
    const auto known = [](float distance) { return std::isfinite(distance) ? distance : 0.0F; };  // of huge keys none is
    const std::vector<float> mean(static_cast<std::size_t>(width));
    using Far = std::pair<float, std::uint32_t>;
    std::vector<Far> bounds;
    for (std::uint32_t t = 0; t < count; ++t)
        bounds.emplace_back(known(weighed_distance(row(t), mean.data(), weights.data(), width)), ~t);  // the first of equals
    std::priority_queue<Far> farthest(std::less<Far>(), std::move(bounds));
    std::vector<std::size_t> compared(static_cast<std::size_t>(count));  // with so many of the entries
    std::vector<std::uint32_t> entries;
    while (static_cast<std::int64_t>(entries.size()) < std::min(wanted, count)) {
        auto [distance, name] = farthest.top();
        farthest.pop();
        const std::uint32_t t = ~name;
        if (compared[t] == entries.size()) {
            entries.push_back(t);
            continue;
        }
        for (; compared[t] < entries.size(); ++compared[t])
            distance = std::min(distance, known(weighed_distance(row(t), row(entries[compared[t]]), weights.data(), width)));
        farthest.emplace(distance, name);
    }
    return entries;
}

// Replaces the near lists [T, k] of the entries by exact ones: the few keys beside one of them may be in any cluster.
inline void near_entries(const GraphBuildArgs& args, const std::vector<std::uint32_t>& entries, std::vector<std::int32_t>& near) {
    const int width = args.graph->width, k = args.settings.neighbours;
    const auto count = static_cast<std::int64_t>(entries.size());
    std::vector<float> queries(entries.size() * static_cast<std::size_t>(width));
    for (std::int64_t e = 0; e < count; ++e)
        std::copy_n(args.rows + static_cast<std::int64_t>(entries[e]) * width, width, &queries[e * width]);
    const std::vector<float> bias = minus_half_norms(args.rows, args.row_count, width);
    std::vector<std::int32_t> found(entries.size() * static_cast<std::size_t>(k + 1));
    graph_nearest({queries.data(), count, args.rows, args.row_count, bias.data(), width, k + 1, found.data(), args.threads,
                   args.interrupted});
    for (std::int64_t e = 0; e < count; ++e) {
        const auto self = static_cast<std::int32_t>(entries[e]);
        std::int32_t* first = &found[e * (k + 1)];
        std::int32_t* end = std::remove(first, first + k + 1, self);
        std::copy_n(first, std::min<std::int64_t>(k, end - first), &near[static_cast<std::int64_t>(self) * k]);
    }
}

}  // namespace longspan::LONGSPAN_ISA
