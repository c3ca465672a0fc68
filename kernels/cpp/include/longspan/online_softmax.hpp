// The running softmax of a few query heads that share their keys: entries come in blocks, the state is
// (largest score, sum of exponentials, weighted sum of values) a head.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "longspan/decode_args.hpp"
#include "longspan/dots.hpp"
#include "longspan/score.hpp"
#include "longspan/weigh.hpp"

namespace longspan::LONGSPAN_ISA {

inline constexpr int block_entries = 64;
inline constexpr float minus_infinity = -std::numeric_limits<float>::infinity();

// Scale, soft cap and bias of a block of raw products, in place; lanes beyond `count` become -infinity.
// Returns the largest.
inline float finish_scores(float* score, int count, float scale, const float* key_scale, float softcap,
                           const float* bias) {
    for (int t = 0; t < count; t += Vec::lanes) {
        Vec s = load(score + t) * broadcast(scale);
        if (key_scale) s = s * load(key_scale + t);
        if (softcap != 0.0F) s = broadcast(softcap) * tanh(s * broadcast(1.0F / softcap));
        if (bias) s = s + load(bias + t);
        store(score + t, s);
    }
    std::fill(score + count, score + block_entries, minus_infinity);
    Vec top = broadcast(minus_infinity);
    for (int t = 0; t < block_entries; t += Vec::lanes) top = max(load(score + t), top);
    return max(top);
}

class OnlineSoftmax {
   public:
    OnlineSoftmax(int heads, int head_size)
        : heads_(heads),
          head_size_(head_size),
          top_(heads, minus_infinity),
          total_(heads, 0.0F),
          decay_(heads, 1.0F),
          score_(static_cast<std::size_t>(heads) * block_entries),
          sum_(static_cast<std::size_t>(heads) * query_stride(head_size), 0.0F) {}

    // Begins anew, with these queries.
    void reset(const float* q) {
        queries_.take(q, heads_, head_size_);
        std::fill(top_.begin(), top_.end(), minus_infinity);
        std::fill(total_.begin(), total_.end(), 0.0F);
        std::fill(sum_.begin(), sum_.end(), 0.0F);
    }

    // rows[count .. known) will be wanted next.
    template <class T>
    void score(const T* const* rows, int count, int known) {
        queries_.dot(rows, count, known, score_.data(), block_entries);
    }

    // Of the first head with the rows of the block that was scored last.
    const float* products() const { return score_.data(); }

    // Turns the scores of a block into weights, and the state of each head into the terms of its new maximum.
    void absorb(int count, float scale, float softcap, const float* key_scale, const float* value_scale,
                const float* bias) {
        for (int r = 0; r < heads_; ++r) {
            float* score = &score_[r * block_entries];
            const float block_top = finish_scores(score, count, scale, key_scale, softcap, bias);
            const float top = std::max(block_top, top_[r]);
            const float reference = top == minus_infinity ? 0.0F : top;
            Vec total = broadcast(0.0F);
            for (int t = 0; t < block_entries; t += Vec::lanes) {
                const Vec weight = exp(load(score + t) - broadcast(reference));
                total = total + weight;
                store(score + t, value_scale ? weight * load(value_scale + t) : weight);
            }
            decay_[r] = std::exp(top_[r] - reference);
            total_[r] = total_[r] * decay_[r] + sum(total);
            top_[r] = top;
        }
    }

    template <class T>
    void weigh(const T* const* rows, int count, int known) {
        for_query_tiles(heads_, [&](int r, auto tile) {
            weigh_rows<tile()>(&score_[r * block_entries], block_entries, &decay_[r], rows, count, r == 0 ? known : 0,
                               head_size_, &sum_[r * query_stride(head_size_)]);
        });
    }

    // out [heads, head_size], lse [heads]; out = 0 and lse = -infinity where nothing had any weight.
    void finish(float* out, float* lse) const {
        for (int r = 0; r < heads_; ++r) {
            const bool empty = total_[r] == 0.0F;
            const float share = empty ? 0.0F : 1.0F / total_[r];
            const float* sum = &sum_[r * query_stride(head_size_)];
            for (int d = 0; d < head_size_; ++d) out[r * head_size_ + d] = sum[d] * share;
            lse[r] = empty ? minus_infinity : top_[r] + std::log(total_[r]);
        }
    }

   private:
    int heads_;
    int head_size_;
    Queries queries_;
    std::vector<float> top_, total_, decay_, score_, sum_;
};

}  // namespace longspan::LONGSPAN_ISA
