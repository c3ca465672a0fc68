// Codebooks of product quantisation: Lloyd's k-means by Euclidean distance on every part of every KV head, and codes.
//
// The nearest centroid is the one of largest x . c - |c|^2 / 2. Both are taken relative to a mean, since the squares of
// what is left lose fewer digits.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "longspan/centred_rows.hpp"
#include "longspan/nearest.hpp"
#include "longspan/product_codes_args.hpp"

namespace longspan::LONGSPAN_ISA {

// Rows of one part of one KV head, as float32.
inline std::vector<float> part_rows(const CodeBooks& books, std::int64_t problem, Span tokens) {
    const std::int64_t first = problem % books.parts * books.part_size;
    const int size = books.part_size;
    std::vector<float> x(tokens.size() * size, 0.0F);
    for_rows(books.keys, problem / books.parts, tokens,
             [&](std::int64_t t, auto* row) { add_row(row + first, size, &x[t * size]); });
    return x;
}

inline void take_off(const std::vector<float>& mean, std::vector<float>& x) {
    const std::size_t size = mean.size();
    for (std::size_t i = 0; i < x.size(); i += size)
        for (std::size_t e = 0; e < size; ++e) x[i + e] -= mean[e];
}

inline std::vector<float> mean_row(const float* x, std::int64_t count, int size) {
    std::vector<double> sum(size, 0.0);
    for (std::int64_t t = 0; t < count; ++t)
        for (int e = 0; e < size; ++e) sum[e] += x[t * size + e];
    std::vector<float> mean(size);
    for (int e = 0; e < size; ++e) mean[e] = static_cast<float>(sum[e] / static_cast<double>(count));
    return mean;
}

inline void pack_by_distance(const float* centroids, int clusters, int size, Panels& panels) {
    std::vector<float> half_square(clusters, 0.0F);
    for (int c = 0; c < clusters; ++c)
        for (int e = 0; e < size; ++e) half_square[c] -= 0.5F * centroids[c * size + e] * centroids[c * size + e];
    panels.pack(centroids, clusters, size, half_square.data());
}

// Each centroid becomes the mean of its members, if there are any; sums are taken in the order of tokens.
inline void to_means(const std::vector<float>& x, const std::vector<std::int32_t>& label, int size, int clusters,
                     float* centroids) {
    std::vector<float> sum(static_cast<std::size_t>(clusters) * size, 0.0F);
    std::vector<std::int64_t> members(clusters, 0);
    for (std::size_t t = 0; t < label.size(); ++t) {
        add_row(&x[t * size], size, &sum[static_cast<std::size_t>(label[t]) * size]);
        ++members[label[t]];
    }
    for (int c = 0; c < clusters; ++c)
        for (int e = 0; members[c] > 0 && e < size; ++e)
            centroids[c * size + e] = sum[c * size + e] / static_cast<float>(members[c]);
}

// Calls body(problem, threads that it may use) for every part of every KV head.
template <class Body>
inline void each_problem(const CodeBooks& books, Body&& body) {
    const std::int64_t problems = static_cast<std::int64_t>(books.groups) * books.parts;
    const int outer = problems >= books.threads ? books.threads : 1;
    const int inner = outer == 1 ? books.threads : 1;
#pragma omp parallel for schedule(dynamic, 1) num_threads(outer) if (outer > 1)
    for (std::int64_t problem = 0; problem < problems; ++problem)
        if (!books.interrupt->poll()) body(problem, inner);
    books.interrupt->raise();
}

// Begins with evenly spaced ones of the tokens, all of which are looked at.
inline void code_train(const CodeTrainArgs& args) {
    const CodeBooks& books = args.books;
    const int size = books.part_size, clusters = books.clusters;
    each_problem(books, [&](std::int64_t problem, int threads) {
        std::vector<float> x = part_rows(books, problem, {0, books.tokens});
        const std::vector<float> mean = mean_row(x.data(), books.tokens, size);
        take_off(mean, x);
        float* centroids = args.centroids + problem * clusters * size;
        for (std::int64_t c = 0; c < clusters; ++c)
            std::copy_n(&x[c * books.tokens / clusters * size], size, centroids + c * size);
        std::vector<std::int32_t> label(books.tokens);
        Panels panels;
        for (int round = 0; round < args.rounds && !books.interrupt->stopped(); ++round) {
            pack_by_distance(centroids, clusters, size, panels);
            nearest(x.data(), books.tokens, size, panels, label.data(), threads, *books.interrupt);
            if (!books.interrupt->stopped()) to_means(x, label, size, clusters, centroids);
        }
        for (int c = 0; c < clusters; ++c) add_row(mean.data(), size, centroids + c * size);
    });
}

inline void code_encode(const CodeEncodeArgs& args) {
    const CodeBooks& books = args.books;
    const int size = books.part_size, clusters = books.clusters;
    constexpr std::int64_t piece = 4096;
    each_problem(books, [&](std::int64_t problem, int threads) {
        const float* given = args.centroids + problem * clusters * size;
        const std::vector<float> mean = mean_row(given, clusters, size);
        std::vector<float> centroids(given, given + static_cast<std::ptrdiff_t>(clusters) * size);
        take_off(mean, centroids);
        Panels panels;
        pack_by_distance(centroids.data(), clusters, size, panels);
        std::int32_t label[piece];
        for (std::int64_t begin = 0; begin < books.tokens && !books.interrupt->stopped(); begin += piece) {
            const Span tokens{begin, std::min(begin + piece, books.tokens)};
            std::vector<float> x = part_rows(books, problem, tokens);
            take_off(mean, x);
            nearest(x.data(), tokens.size(), size, panels, label, threads, *books.interrupt);
            std::copy_n(label, tokens.size(), args.code + problem * books.tokens + begin);
        }
    });
}

}  // namespace longspan::LONGSPAN_ISA
