// Mean-centred spherical k-means within segments, and what stands for each cluster.
//
// A segment of a KV head is one piece of work, from centring to the description of its clusters; where there are fewer
// pieces than threads, the threads share the tokens of a piece instead. Sums are always taken in the order of tokens.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "longspan/centred_rows.hpp"
#include "longspan/kmeans_args.hpp"
#include "longspan/nearest.hpp"
#include "longspan/seeds_apart.hpp"

namespace longspan::LONGSPAN_ISA {

// Replaces each centroid by the normalised mean of its members; those without members stay.
inline void move_centroids(const std::vector<float>& x, const std::vector<std::int32_t>& label, int width,
                           std::vector<float>& centroids) {
    std::vector<float> sums(centroids.size(), 0.0F);
    std::vector<bool> filled(centroids.size() / width, false);
    for (std::size_t t = 0; t < label.size(); ++t) {
        add_row(&x[t * width], width, &sums[static_cast<std::size_t>(label[t]) * width]);
        filled[label[t]] = true;
    }
    for (std::size_t c = 0; c < filled.size(); ++c) {
        if (!filled[c]) continue;
        float square = 0.0F;
        for (int d = 0; d < width; ++d) square += sums[c * width + d] * sums[c * width + d];
        const float share = 1.0F / std::max(std::sqrt(square), 1e-12F);
        for (int d = 0; d < width; ++d) centroids[c * width + d] = sums[c * width + d] * share;
    }
}

// Centroids of a segment after all rounds but the last, and the labels that they give its tokens.
struct Trained {
    std::vector<float> centroids;
    std::vector<std::int32_t> label;
};

inline Trained train(const KmeansArgs& args, const std::vector<float>& x, std::int64_t clusters, int threads) {
    const int width = args.head_size;
    const auto tokens = static_cast<std::int64_t>(x.size()) / width;
    Trained trained{std::vector<float>(clusters * width), std::vector<std::int32_t>(tokens)};
    if (args.even_share < 1.0F && clusters <= tokens) {
        const auto even = std::max<std::int64_t>(1, std::ceil(args.even_share * static_cast<float>(clusters)));
        seed_apart(x.data(), tokens, width, even, clusters, threads, *args.interrupt, trained.centroids.data());
    } else {
        const Seeds seeds = even_seeds(tokens, clusters);
        for (std::int64_t c = 0; c < clusters; ++c)
            std::copy_n(&x[static_cast<std::int64_t>(seeds[c]) * width], width, &trained.centroids[c * width]);
    }
    Panels panels;
    for (int round = 0; round < args.iterations && !args.interrupt->stopped(); ++round) {
        panels.pack(trained.centroids.data(), clusters, width);
        const bool last = round + 1 == args.iterations;
        if (last && args.global) break;
        nearest(x.data(), tokens, width, panels, trained.label.data(), threads, *args.interrupt);
        if (!last) move_centroids(x, trained.label, width, trained.centroids);
    }
    return trained;
}

// Order, sizes, means and spread of the clusters [clusters.begin, clusters.end), which hold exactly these tokens.
// Labels count from clusters.begin; x is centred.
inline void describe(const KmeansArgs& args, std::int64_t group, Span tokens, Span clusters,
                     const std::vector<float>& x, const std::vector<std::int32_t>& label, const float* mean) {
    const int width = args.head_size;
    const std::int64_t at = group * args.clusters + clusters.begin;
    std::int32_t* size = args.size + at;
    std::fill_n(size, clusters.size(), 0);
    std::fill_n(args.centroids + at * width, clusters.size() * width, 0.0F);
    std::fill_n(args.mean_values + at * width, clusters.size() * width, 0.0F);
    for (std::size_t t = 0; t < label.size(); ++t) {
        ++size[label[t]];
        add_row(&x[t * width], width, args.centroids + (at + label[t]) * width);
    }
    for_rows(args.values, group, tokens, [&](std::int64_t t, auto* row) {
        add_row(row, width, args.mean_values + (at + label[t]) * width);
    });
    std::vector<std::int64_t> next(clusters.size());
    std::int64_t start = tokens.begin;
    for (std::int64_t c = 0; c < clusters.size(); ++c) {
        args.start[at + c] = static_cast<std::int32_t>(start);
        next[c] = start;
        start += size[c];
        const float share = 1.0F / static_cast<float>(std::max(size[c], 1));
        float* centroid = args.centroids + (at + c) * width;
        float* value = args.mean_values + (at + c) * width;
        for (int d = 0; d < width; ++d) {
            centroid[d] *= share;
            value[d] *= share;
        }
    }
    std::vector<float> square(clusters.size(), 0.0F);  // about the centroid: a difference of large sums would be rounding
    for (std::size_t t = 0; t < label.size(); ++t) {
        const float* row = &x[t * width];
        const float* centroid = args.centroids + (at + label[t]) * width;
        float total = 0.0F;
        for (int d = 0; d < width; ++d) total += (row[d] - centroid[d]) * (row[d] - centroid[d]);
        square[label[t]] += total;
    }
    for (std::int64_t c = 0; c < clusters.size(); ++c) {
        float* centroid = args.centroids + (at + c) * width;
        for (int d = 0; d < width; ++d) centroid[d] += mean[d];
        args.spread[at + c] = square[c] / static_cast<float>(std::max(size[c], 1) * width);
    }
    for (std::size_t t = 0; t < label.size(); ++t)
        args.order[group * args.tokens + next[label[t]]++] = tokens.begin + static_cast<std::int64_t>(t);
}

// The last assignment of all tokens of a group to the centroids of all its segments.
inline void assign_globally(const KmeansArgs& args, std::int64_t group, const std::vector<float>& centroids,
                            const float* mean, int threads) {
    const std::vector<float> x = centred(args, group, {0, args.tokens}, mean);
    std::vector<std::int32_t> label(args.tokens);
    Panels panels;
    panels.pack(centroids.data(), args.clusters, args.head_size);
    nearest(x.data(), args.tokens, args.head_size, panels, label.data(), threads, *args.interrupt);
    if (!args.interrupt->stopped()) describe(args, group, {0, args.tokens}, {0, args.clusters}, x, label, mean);
}

inline void segmented_kmeans(const KmeansArgs& args) {
    const std::vector<float> mean = mean_keys(args);
    const std::int64_t items = args.groups * args.segments;
    std::vector<Trained> trained(args.global ? items : 0);
    const int outer = items >= args.threads ? args.threads : 1;
    const int inner = outer == 1 ? args.threads : 1;
#pragma omp parallel for schedule(dynamic, 1) num_threads(outer) if (outer > 1)
    for (std::int64_t item = 0; item < items; ++item) {
        if (args.interrupt->poll()) continue;
        const std::int64_t group = item / args.segments, segment = item % args.segments;
        const Span tokens = part_of(args.tokens, args.segments, segment);
        const Span clusters = part_of(args.clusters, args.segments, segment);
        const float* group_mean = &mean[group * args.head_size];
        const std::vector<float> x = centred(args, group, tokens, group_mean);
        Trained result = train(args, x, clusters.size(), inner);
        if (args.global) trained[item] = std::move(result);
        else if (!args.interrupt->stopped()) describe(args, group, tokens, clusters, x, result.label, group_mean);
    }
    args.interrupt->raise();
    for (std::int64_t group = 0; args.global && group < args.groups; ++group) {
        std::vector<float> centroids;
        for (std::int64_t item = group * args.segments; item < (group + 1) * args.segments; ++item)
            centroids.insert(centroids.end(), trained[item].centroids.begin(), trained[item].centroids.end());
        assign_globally(args, group, centroids, &mean[group * args.head_size], args.threads);
        args.interrupt->raise();
    }
}

}  // namespace longspan::LONGSPAN_ISA
