// The centroid of largest inner product with each of many tokens: a blocked matrix product whose result is never stored.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <vector>

#include "longspan/interrupt.hpp"
#include "longspan/simd.hpp"

namespace longspan::LONGSPAN_ISA {

// Centroids in panels of some vectors' width, each panel [head_size, width], so that lanes run over centroids and no
// product needs a horizontal sum. A product begins with `start` of its centroid, or 0; columns that only fill the last panel
// score -infinity.
class Panels {
   public:
    static constexpr int vectors = 3;
    static constexpr int width = vectors * Vec::lanes;

    void pack(const float* centroids, std::int64_t count, int head_size, const float* start = nullptr) {
        head_size_ = head_size;
        panels_ = (count + width - 1) / width;
        packed_.assign(panels_ * (head_size + 1) * width, 0.0F);
        for (std::int64_t c = 0; c < panels_ * width; ++c) {
            float* column = &packed_[c / width * (head_size + 1) * width + c % width];
            column[0] = c >= count ? -std::numeric_limits<float>::infinity() : start ? start[c] : 0.0F;
            for (int d = 0; c < count && d < head_size; ++d) column[(d + 1) * width] = centroids[c * head_size + d];
        }
    }
    std::int64_t count() const { return panels_; }
    // One row of starting values, then one row a dimension.
    const float* panel(std::int64_t p) const { return &packed_[p * (head_size_ + 1) * width]; }

   private:
    int head_size_ = 0;
    std::int64_t panels_ = 0;
    std::vector<float> packed_;
};

inline constexpr int tile_tokens = Vec::lanes == 16 ? 8 : 4;

// The best so far of each token of a tile, lane by lane.
struct Best {
    float score[tile_tokens][Vec::lanes];
    float id[tile_tokens][Vec::lanes];  // whole numbers below 2^24

    static Best none() {
        Best best{};
        std::fill_n(&best.score[0][0], tile_tokens * Vec::lanes, -std::numeric_limits<float>::infinity());
        return best;
    }
};

// The products of a tile of tokens with the columns of a panel.
inline void multiply_panel(const float* const* tokens, const float* panel, int head_size,
                           Vec (&result)[tile_tokens][Panels::vectors]) {
    Vec product[tile_tokens][Panels::vectors];  // in registers, whatever becomes of the result
#pragma GCC unroll 8
    for (int t = 0; t < tile_tokens; ++t)
#pragma GCC unroll 3
        for (int c = 0; c < Panels::vectors; ++c) product[t][c] = load(panel + c * Vec::lanes);
    for (int d = 0; d < head_size; ++d) {
        Vec column[Panels::vectors];
#pragma GCC unroll 3
        for (int c = 0; c < Panels::vectors; ++c) column[c] = load(panel + (d + 1) * Panels::width + c * Vec::lanes);
#pragma GCC unroll 8
        for (int t = 0; t < tile_tokens; ++t) {
            const Vec element = broadcast(tokens[t][d]);
#pragma GCC unroll 3
            for (int c = 0; c < Panels::vectors; ++c) product[t][c] = fma(element, column[c], product[t][c]);
        }
    }
#pragma GCC unroll 8
    for (int t = 0; t < tile_tokens; ++t)
#pragma GCC unroll 3
        for (int c = 0; c < Panels::vectors; ++c) result[t][c] = product[t][c];
}

inline void meet_panel(const float* const* tokens, const float* panel, int head_size, float first_id, Best& best) {
    Vec product[tile_tokens][Panels::vectors];
    multiply_panel(tokens, panel, head_size, product);
#pragma GCC unroll 8
    for (int t = 0; t < tile_tokens; ++t) {
        Vec score = load(best.score[t]), id = load(best.id[t]);
#pragma GCC unroll 3
        for (int c = 0; c < Panels::vectors; ++c) {
            id = where_greater(product[t][c], score, broadcast(first_id + static_cast<float>(c)), id);
            score = where_greater(product[t][c], score, product[t][c], score);
        }
        store(best.score[t], score);
        store(best.id[t], id);
    }
}

// `id` counts vectors; the lane completes it. The lowest number wins a tie.
inline std::int32_t winner(const float* score, const float* id) {
    std::int64_t at = 0;
    float top = -std::numeric_limits<float>::infinity();
    for (int lane = 0; lane < Vec::lanes; ++lane) {
        const std::int64_t number = static_cast<std::int64_t>(id[lane]) * Vec::lanes + lane;
        if (score[lane] > top || (score[lane] == top && number < at)) {
            top = score[lane];
            at = number;
        }
    }
    return static_cast<std::int32_t>(at);
}

// label[t] for tokens [count, head_size]; parallel where the caller is not.
inline void nearest(const float* tokens, std::int64_t count, int head_size, const Panels& panels, std::int32_t* label,
                    int threads, Interrupt& interrupt) {
    constexpr std::int64_t chunk = 128;  // tokens that stay in the second-level cache while the panels pass by
    static_assert(chunk % tile_tokens == 0);
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads) if (threads > 1)
    for (std::int64_t begin = 0; begin < count; begin += chunk) {
        if (interrupt.poll()) continue;
        Best best[chunk / tile_tokens];
        std::fill_n(best, chunk / tile_tokens, Best::none());
        for (std::int64_t p = 0; p < panels.count(); ++p) {
            for (std::int64_t t = begin; t < std::min(begin + chunk, count); t += tile_tokens) {
                const float* rows[tile_tokens];
                for (int i = 0; i < tile_tokens; ++i) rows[i] = tokens + std::min(t + i, count - 1) * head_size;
                meet_panel(rows, panels.panel(p), head_size, static_cast<float>(p * Panels::vectors),
                           best[(t - begin) / tile_tokens]);
            }
        }
        for (std::int64_t t = begin; t < std::min(begin + chunk, count); ++t) {
            const Best& tile = best[(t - begin) / tile_tokens];
            label[t] = winner(tile.score[(t - begin) % tile_tokens], tile.id[(t - begin) % tile_tokens]);
        }
    }
}

}  // namespace longspan::LONGSPAN_ISA
