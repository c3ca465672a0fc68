// Seeds that point apart: some of them evenly spaced, then again and again the tokens least like any seed so far.
//
// Farthest first, by cosine, in batches: of a pool of the least like, the batch is chosen one by one, each pick counting for
// the next; only then do all tokens meet the batch. One token is read once a batch, all together cost about two rounds.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>
#include <vector>

#include "longspan/interrupt.hpp"
#include "longspan/score.hpp"

namespace longspan::LONGSPAN_ISA {

inline constexpr std::int64_t seed_batch = 16, seed_pool = 64;
inline constexpr float chosen = std::numeric_limits<float>::infinity();

using Seeds = std::vector<std::int32_t>;

class Apart {
   public:
    Apart(const float* x, std::int64_t tokens, int width, int threads)
        : x_(x), tokens_(tokens), width_(width), threads_(threads), share_(tokens), alike_(tokens, -chosen) {
        for (std::int64_t t = 0; t < tokens; ++t) {
            float square = 0.0F;
            for (int d = 0; d < width; ++d) square += x[t * width + d] * x[t * width + d];
            share_[t] = 1.0F / std::max(std::sqrt(square), 1e-12F);
        }
    }

    // All tokens meet the seeds [first, last), which are no candidates any more.
    void take(const std::int32_t* first, const std::int32_t* last) {
        for (; first < last; first += seed_batch) {
            const auto count = std::min<std::int64_t>(seed_batch, last - first);
            const std::vector<float> unit = unit_rows(first, count);
#pragma omp parallel for schedule(static) num_threads(threads_) if (threads_ > 1)
            for (std::int64_t begin = 0; begin < tokens_; begin += block)
                meet(unit.data(), count, nullptr, begin, std::min(block, tokens_ - begin), &alike_[begin]);
            for (std::int64_t i = 0; i < count; ++i) alike_[first[i]] = chosen;
        }
    }

    // The next `count` <= seed_batch seeds.
    Seeds farthest(std::int64_t count) const {
        Seeds pool(tokens_), picked;
        std::iota(pool.begin(), pool.end(), 0);
        const auto size = std::min(seed_pool, tokens_);
        std::partial_sort(pool.begin(), pool.begin() + size, pool.end(), [this](std::int32_t a, std::int32_t b) {
            return alike_[a] != alike_[b] ? alike_[a] < alike_[b] : a < b;
        });
        float alike[seed_pool];
        for (std::int64_t i = 0; i < size; ++i) alike[i] = alike_[pool[i]];
        while (static_cast<std::int64_t>(picked.size()) < count) {
            const std::int64_t at = std::min_element(alike, alike + size) - alike;
            picked.push_back(pool[at]);
            meet(unit_rows(&pool[at], 1).data(), 1, pool.data(), 0, size, alike);
            alike[at] = chosen;
        }
        return picked;
    }

    // Rows of length 1, padded as queries are.
    std::vector<float> unit_rows(const std::int32_t* ids, std::int64_t count) const {
        const int stride = query_stride(width_);
        std::vector<float> unit(count * stride, 0.0F);
        for (std::int64_t i = 0; i < count; ++i)
            for (int d = 0; d < width_; ++d)
                unit[i * stride + d] = x_[static_cast<std::int64_t>(ids[i]) * width_ + d] * share_[ids[i]];
        return unit;
    }

   private:
    static constexpr std::int64_t block = 64;
    static_assert(seed_pool <= block);

    // alike[t] becomes the largest cosine of token begin + t (of ids[t], where there are any) with seeds so far.
    void meet(const float* unit, std::int64_t seeds, const std::int32_t* ids, std::int64_t begin, std::int64_t count,
              float* alike) const {
        float product[seed_batch * block];
        score_typed<float>({unit, static_cast<int>(seeds), x_ + begin * width_, Dtype::f32, width_, ids, count, width_,
                            product, block});
        for (std::int64_t s = 0; s < seeds; ++s)
            for (std::int64_t t = 0; t < count; ++t)
                alike[t] = std::max(alike[t], product[s * block + t] * share_[ids ? ids[t] : begin + t]);
    }

    const float* x_;
    std::int64_t tokens_;
    int width_, threads_;
    std::vector<float> share_, alike_;
};

// Tokens in the middle of `count` equal stretches.
inline Seeds even_seeds(std::int64_t tokens, std::int64_t count) {
    Seeds seeds(count);
    for (std::int64_t c = 0; c < count; ++c) seeds[c] = static_cast<std::int32_t>((2 * c + 1) * tokens / (2 * count));
    return seeds;
}

// Writes centroids [clusters, width] of length 1, `even` of them evenly spaced; there must be as many tokens as clusters.
inline void seed_apart(const float* x, std::int64_t tokens, int width, std::int64_t even, std::int64_t clusters, int threads,
                       Interrupt& interrupt, float* centroids) {
    Apart apart(x, tokens, width, threads);
    Seeds seeds = even_seeds(tokens, even);
    apart.take(seeds.data(), seeds.data() + seeds.size());
    while (static_cast<std::int64_t>(seeds.size()) < clusters && !interrupt.poll()) {
        const Seeds more = apart.farthest(std::min<std::int64_t>(seed_batch, clusters - seeds.size()));
        apart.take(more.data(), more.data() + more.size());
        seeds.insert(seeds.end(), more.begin(), more.end());
    }
    const std::vector<float> unit = apart.unit_rows(seeds.data(), seeds.size());
    for (std::size_t c = 0; c < seeds.size(); ++c) std::copy_n(&unit[c * query_stride(width)], width, centroids + c * width);
}

}  // namespace longspan::LONGSPAN_ISA
