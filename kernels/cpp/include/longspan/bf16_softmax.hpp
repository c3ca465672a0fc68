// The running softmax of a band of positions, strip by strip, over weighted values that products sum.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <limits>

#include "longspan/array.hpp"
#include "longspan/bf16_products.hpp"
#include "longspan/bf16_units.hpp"
#include "longspan/simd.hpp"

namespace longspan::LONGSPAN_ISA {

inline constexpr int strip_positions = product_columns;
inline constexpr int held_units = 8;  // units whose weights are held before their values are added
inline constexpr float infinity = std::numeric_limits<float>::infinity();

// 2^x, to 3e-6 of itself; NaN stays NaN.
inline Vec power_of(Vec x) {
    const Vec part{_mm512_reduce_ps(x.value, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC)};  // x - floor x; 0 of -infinity
    Vec p = broadcast(0.0135341681F);
    p = fma(p, part, broadcast(0.0520114619F));
    p = fma(p, part, broadcast(0.241442755F));
    p = fma(p, part, broadcast(0.693003835F));
    p = fma(p, part, broadcast(1.00000259F));
    return {_mm512_scalef_ps(p.value, x.value)};  // times 2^floor x
}

class BandSoftmax {
   public:
    explicit BandSoftmax(int head_size) : size_(head_size), sum_(static_cast<std::size_t>(head_size) * band_positions) {}

    void clear() {
        std::fill(sum_.begin(), sum_.end(), 0.0F);
        top_.fill(-infinity);
        total_.fill(0.0F);
        rounded_.fill(0.0F);
    }

    // The strip from position `at` on takes in a unit with these scores [32 entries, 32 positions], which count `factor` times.
    // A position's largest score is looked for only at first, and where weights by the one known grow too large: any number
    // near it serves.
    void absorb(int at, const float* score, float factor, const Unit& unit) {
        if (!take_weights(at, score, factor)) {
            add_values(at);
            raise_tops(at, score, factor);
            take_weights(at, score, factor);
        }
        for (int column = 0; column < strip_positions; column += Vec::lanes) {
            add_to(&total_[at + column], load(&added_[column]));
            add_to(&rounded_[at + column], load(&added_rounded_[column]));
        }
        values_[held_++] = unit.values;
        if (held_ == held_units) add_values(at);
    }

    // What is held of weights and values goes into the sums; before another strip's turn.
    void add_values(int at) {
        for (int d = 0; d < size_ && held_ > 0; d += 2 * tile_rows) {
            float* sum = sums(at) + d * strip_positions;
            const auto values = [&](int u) {
                return LeftTiles{values_[u] + d / tile_rows * tile_elements, tile_pairs, tile_elements};
            };
            const auto weights = [&](int u) { return &weight_[u * unit_entries * strip_positions]; };
            sum_products(sum, false, held_, values, weights);
        }
        held_ = 0;
    }

    // The output of position `i`; returns ln of its sum, its scores counting `scale` times.
    float give(int i, float scale, float* out) const {
        const bool empty = total_[i] == 0.0F;
        // by the sum of the rounded weights: one that outweighs all others is exact then
        const float share = empty ? 0.0F : 1.0F / rounded_[i];
        const float* sum = sums(i / strip_positions * strip_positions) + i % strip_positions;
        for (int d = 0; d < size_; ++d) out[d] = empty ? 0.0F : sum[d * strip_positions] * share;
        return empty ? -infinity : top_[i] * scale + std::log(total_[i]);
    }

   private:
    static void add_to(float* sum, Vec more) { store(sum, load(sum) + more); }
    const float* sums(int at) const { return sum_.data() + static_cast<std::size_t>(at) * size_; }
    float* sums(int at) { return sum_.data() + static_cast<std::size_t>(at) * size_; }

    // Where nothing was seen yet, anything finite does.
    static Vec finite(Vec top) { return where_greater(top, broadcast(-infinity), top, broadcast(0.0F)); }

    // The largest score so far of the positions whose weights did not fit; what was summed of them before decays.
    void raise_tops(int at, const float* score, float factor) {
        for (int column = 0; column < strip_positions; column += Vec::lanes) {
            float* kept = &top_[at + column];
            const Vec before = load(kept);
            Vec top = before;
            for (int t = 0; t < unit_entries; ++t) top = max(load(score + t * strip_positions + column), top);
            top.value = _mm512_mask_mov_ps(top.value, fits(before, load(&added_[column])), before.value);
            store(kept, top);
            const Vec fall = (before - finite(top)) * broadcast(factor);
            const Vec decay = where_greater(top, before, power_of(fall), broadcast(1.0F));
            for (float* total : {&total_[at + column], &rounded_[at + column]}) store(total, load(total) * decay);
            float* sum = sums(at) + column;
            for (int d = 0; d < size_; ++d) store(sum + d * strip_positions, load(sum + d * strip_positions) * decay);
        }
    }

    // The positions whose largest score is known and whose weights by it are not too large for their sums.
    static __mmask16 fits(Vec top, Vec added) {
        const __mmask16 known = _mm512_cmp_ps_mask(top.value, broadcast(-infinity).value, _CMP_GT_OQ);
        return _mm512_mask_cmp_ps_mask(known, added.value, broadcast(0x1p64F).value, _CMP_LT_OQ);
    }

    // The weights of a unit as a right operand; false where those of a position do not fit.
    bool take_weights(int at, const float* score, float factor) {
        const __m512i mix = interleaving();
        const Pairs ones{reinterpret_cast<__m512bh>(_mm512_set1_epi16(0x3f80))};
        const Vec by = broadcast(factor);
        bool fit = true;
        for (int column = 0; column < strip_positions; column += Vec::lanes) {
            const Vec less = broadcast(0.0F) - finite(load(&top_[at + column])) * by;
            const float* from = score + column;
            Bf16* weight = &weight_[held_ * unit_entries * strip_positions + column * tile_pairs];
            Vec even = broadcast(0.0F), odd = broadcast(0.0F), rounded = broadcast(0.0F);
            for (int pair = 0; pair < tile_rows; ++pair, from += 2 * strip_positions, weight += tile_pairs) {
                const Vec a = power_of(fma(load(from), by, less));
                const Vec b = power_of(fma(load(from + strip_positions), by, less));
                even = even + a;
                odd = odd + b;
                const __m512i both = reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(b.value, a.value));
                const __m512i mixed = _mm512_permutexvar_epi16(mix, both);
                rounded = fma(Pairs{reinterpret_cast<__m512bh>(mixed)}, ones, rounded);
                _mm512_storeu_si512(weight, mixed);
            }
            store(&added_[column], even + odd);
            store(&added_rounded_[column], rounded);
            fit &= fits(load(&top_[at + column]), even + odd) == 0xffff;
        }
        return fit;
    }

    // Takes 16 and 16 elements to pairs.
    static __m512i interleaving() {
        alignas(64) static const auto kept = [] {
            std::array<std::uint16_t, 32> result{};
            for (std::uint16_t i = 0; i < 32; ++i) result[i] = static_cast<std::uint16_t>(i / 2 + i % 2 * 16);
            return result;
        }();
        return _mm512_load_si512(kept.data());
    }

    int size_;
    int held_ = 0;
    Array<float> sum_;  // [strip, head size, 32 positions]
    std::array<const Bf16*, held_units> values_{};
    alignas(64) std::array<Bf16, held_units * unit_entries * strip_positions> weight_{};
    alignas(64) std::array<float, strip_positions> added_{};
    alignas(64) std::array<float, strip_positions> added_rounded_{};
    alignas(64) std::array<float, band_positions> top_{};  // scores that weights are counted from
    alignas(64) std::array<float, band_positions> total_{};
    alignas(64) std::array<float, band_positions> rounded_{};  // sums of the weights as they are multiplied
};

}  // namespace longspan::LONGSPAN_ISA
