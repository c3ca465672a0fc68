// Clusters of the codes, and through them the near neighbours of every key without a quadratic search.
#pragma once

#include <algorithm>
#include <numeric>
#include <vector>

#include "longspan/attention_graph_nearest.hpp"
#include "longspan/attention_graph_scores.hpp"

namespace longspan::LONGSPAN_ISA {

struct Clusters {
    std::int64_t count = 0;
    std::vector<float> centroids;       // [C, W]
    std::vector<std::int32_t> label;    // [T]
    std::vector<std::int64_t> begin;    // [C + 1] into members
    std::vector<std::uint32_t> members; // [T] by cluster

    std::int64_t size(std::int64_t c) const { return begin[c + 1] - begin[c]; }
};

inline std::vector<float> minus_half_norms(const float* rows, std::int64_t count, int width) {
    std::vector<float> bias(static_cast<std::size_t>(count));
    for (std::int64_t t = 0; t < count; ++t) bias[t] = -0.5F * product(rows + t * width, rows + t * width, width);
    return bias;
}

// Nearest centroid of each row by Euclidean distance.
inline void assign_rows(const float* rows, std::int64_t count, int width, const Clusters& clusters, std::int32_t* label,
                        int threads, Interrupted interrupted) {
    const std::vector<float> bias = minus_half_norms(clusters.centroids.data(), clusters.count, width);
    graph_nearest({rows, count, clusters.centroids.data(), clusters.count, bias.data(), width, 1, label, threads, interrupted});
}

inline void list_members(Clusters& clusters) {
    clusters.begin.assign(static_cast<std::size_t>(clusters.count) + 1, 0);
    for (std::int32_t c : clusters.label) ++clusters.begin[c + 1];
    std::partial_sum(clusters.begin.begin(), clusters.begin.end(), clusters.begin.begin());
    std::vector<std::int64_t> at(clusters.begin.begin(), clusters.begin.end() - 1);
    clusters.members.resize(clusters.label.size());
    for (std::size_t t = 0; t < clusters.label.size(); ++t)
        clusters.members[at[clusters.label[t]]++] = static_cast<std::uint32_t>(t);
}

// Lloyd rounds on a strided sample; empty clusters keep their centroid. Rows that are all equal end in one cluster.
inline Clusters cluster_rows(const float* rows, std::int64_t count, int width, std::int64_t wanted, int threads,
                             Interrupted interrupted) {
    constexpr int rounds = 4, sampled_a_cluster = 24;
    Clusters clusters;
    clusters.count = std::clamp<std::int64_t>(wanted, 1, count);
    clusters.centroids.resize(static_cast<std::size_t>(clusters.count * width));
    for (std::int64_t c = 0; c < clusters.count; ++c)
        std::copy_n(rows + (2 * c + 1) * count / (2 * clusters.count) * width, width, &clusters.centroids[c * width]);
    const std::int64_t sampled = std::min(count, clusters.count * sampled_a_cluster);
    std::vector<float> sample(static_cast<std::size_t>(sampled * width));
    for (std::int64_t s = 0; s < sampled; ++s) std::copy_n(rows + s * count / sampled * width, width, &sample[s * width]);
    std::vector<std::int32_t> label(static_cast<std::size_t>(sampled));
    std::vector<float> total(clusters.centroids.size());
    std::vector<int> sizes(static_cast<std::size_t>(clusters.count));
    for (int round = 0; round < rounds; ++round) {
        assign_rows(sample.data(), sampled, width, clusters, label.data(), threads, interrupted);
        std::fill(total.begin(), total.end(), 0.0F);
        std::fill(sizes.begin(), sizes.end(), 0);
        if (interrupted && interrupted()) return clusters;
        for (std::int64_t s = 0; s < sampled; ++s) {
            const std::int64_t c = std::max(label[s], 0);  // of huge keys no distance is a number
            ++sizes[c];
            for (int w = 0; w < width; ++w) total[c * width + w] += sample[s * width + w];
        }
        for (std::int64_t c = 0; c < clusters.count; ++c)
            for (int w = 0; w < width && sizes[c] > 0; ++w)
                clusters.centroids[c * width + w] = total[c * width + w] / static_cast<float>(sizes[c]);
    }
    clusters.label.assign(static_cast<std::size_t>(count), -1);
    assign_rows(rows, count, width, clusters, clusters.label.data(), threads, interrupted);
    for (std::int32_t& label : clusters.label) label = std::max(label, 0);
    return clusters;
}

// lists[T, k]: near rows of every row, looked for in the `probes` clusters nearest to its own; -1 where fewer.
inline void near_lists(const float* rows, int width, const Clusters& clusters, int probes, int k, std::int32_t* lists,
                       int threads, Interrupted interrupted) {
    constexpr std::int64_t most_rows = 2048;  // a cluster of thousands of equal keys is cut
    const int near = static_cast<int>(std::min<std::int64_t>(probes, clusters.count));
    std::vector<std::int32_t> nearest(static_cast<std::size_t>(clusters.count * near));
    const std::vector<float> bias = minus_half_norms(clusters.centroids.data(), clusters.count, width);
    graph_nearest({clusters.centroids.data(), clusters.count, clusters.centroids.data(), clusters.count, bias.data(), width,
                   near, nearest.data(), threads, interrupted});
    Interruption interruption{interrupted};
#pragma omp parallel for schedule(dynamic, 4) num_threads(threads) if (threads > 1)
    for (std::int64_t c = 0; c < clusters.count; ++c) {
        if (interruption.stop()) continue;
        std::vector<std::uint32_t> nodes;
        const auto take = [&](std::int64_t from) {
            for (std::int64_t m = clusters.begin[from]; m < clusters.begin[from + 1]; ++m)
                if (static_cast<std::int64_t>(nodes.size()) < most_rows) nodes.push_back(clusters.members[m]);
        };
        take(c);
        for (int p = 0; p < near; ++p)
            if (nearest[c * near + p] >= 0 && nearest[c * near + p] != c) take(nearest[c * near + p]);
        std::vector<float> block(nodes.size() * static_cast<std::size_t>(width));
        for (std::size_t i = 0; i < nodes.size(); ++i)
            std::copy_n(rows + static_cast<std::int64_t>(nodes[i]) * width, width, &block[i * width]);
        const std::vector<float> half = minus_half_norms(block.data(), static_cast<std::int64_t>(nodes.size()), width);
        // A further chunk of a large cluster is compared with the first rows taken.
        std::vector<float> queries;
        std::vector<std::int32_t> found;
        for (std::int64_t first = clusters.begin[c]; first < clusters.begin[c + 1]; first += most_rows) {
            const std::int64_t chunk = std::min(most_rows, clusters.begin[c + 1] - first);
            queries.resize(static_cast<std::size_t>(chunk * width));
            found.assign(static_cast<std::size_t>(chunk * (k + 1)), -1);
            for (std::int64_t i = 0; i < chunk; ++i)
                std::copy_n(rows + static_cast<std::int64_t>(clusters.members[first + i]) * width, width, &queries[i * width]);
            graph_nearest({queries.data(), chunk, block.data(), static_cast<std::int64_t>(nodes.size()), half.data(), width,
                           k + 1, found.data(), 1, nullptr});
            for (std::int64_t i = 0; i < chunk; ++i) {
                const std::uint32_t self = clusters.members[first + i];
                int kept = 0;
                for (int f = 0; f <= k && kept < k; ++f) {
                    const std::int32_t local = found[i * (k + 1) + f];
                    if (local < 0 || nodes[local] == self) continue;
                    lists[static_cast<std::int64_t>(self) * k + kept++] = static_cast<std::int32_t>(nodes[local]);
                }
                while (kept < k) lists[static_cast<std::int64_t>(self) * k + kept++] = -1;
            }
        }
        interruption.poll();
    }
}

}  // namespace longspan::LONGSPAN_ISA
