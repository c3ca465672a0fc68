// The tokens of largest weight by their codes: scores come out of tables, one look-up a part for all heads of a row.
//
// Heads lie side by side, W of them (a power of two, at most 16), so that a look-up is one short vector. Scores are never
// stored: a piece is scored once for the sum of each head's exponentials, and again for its weights.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <vector>

#include "longspan/online_softmax.hpp"
#include "longspan/product_codes_args.hpp"
#include "longspan/select.hpp"

namespace longspan::LONGSPAN_ISA {

// A stretch of consecutive tokens of one codebook.
struct CodePiece {
    const CodedStretch* stretch;
    std::int64_t table;  // where the tables of its stretch begin
    std::int64_t begin;  // within the stretch
    std::int64_t first;  // of all tokens
    std::int64_t size;
};

inline constexpr std::int64_t code_piece = 512;

// Weights below this are told apart by their logarithms: their exponentials would vanish.
inline constexpr float least_weight = 1e-30F;

template <int W>
class CodeSearch {
   public:
    explicit CodeSearch(const CodeSearchArgs& args)
        : args_(args), blocks_((args.row_heads + W - 1) / W), padded_(blocks_ * W) {
        std::int64_t tables = 0;
        for (const CodedStretch& stretch : args.stretches) {
            for (std::int64_t begin = 0; begin < stretch.tokens; begin += code_piece)
                pieces_.push_back({&stretch, tables, begin, tokens_ + begin, std::min(code_piece, stretch.tokens - begin)});
            tokens_ += stretch.tokens;
            tables += args.rows * table_size(stretch);
        }
        tables_.resize(tables);
        top_.resize(args.rows * pieces_.size() * padded_);
        total_.resize(top_.size());
        weight_ = std::make_unique_for_overwrite<float[]>(args.rows * tokens_);
    }

    void run() {
        const auto pieces = static_cast<std::int64_t>(pieces_.size()), items = args_.rows * pieces;
        const bool parallel = args_.threads > 1 && items > 1;
        lay_out_tables();
#pragma omp parallel num_threads(args_.threads) if (parallel)
        {
            alignas(64) float score[code_piece * W];
#pragma omp for schedule(static)
            for (std::int64_t item = 0; item < items; ++item) sum_piece(item / pieces, item % pieces, score);
#pragma omp for schedule(static)
            for (std::int64_t row = 0; row < args_.rows; ++row) finish_sums(row);
#pragma omp for schedule(static)
            for (std::int64_t item = 0; item < items; ++item) weigh_piece(item / pieces, item % pieces, score);
            TwoTier selector;
            std::vector<std::int32_t> ids;
#pragma omp for schedule(dynamic, 1)
            for (std::int64_t row = 0; row < args_.rows; ++row) {
                float* weight = &weight_[row * tokens_];
                if (std::count_if(weight, weight + tokens_, [](float w) { return w > 0.0F; }) < args_.wanted) tell_apart(row);
                selector.largest(weight, tokens_, args_.wanted, ids);
                std::copy(ids.begin(), ids.end(), args_.found + row * args_.wanted);
            }
        }
    }

   private:
    // The numbers of a block of heads, which the compiler keeps in one register, or in as few as it takes.
    typedef float Heads __attribute__((vector_size(W * sizeof(float))));

    // Floats that hold every head of a block the same number of times, and whole vectors.
    static constexpr int span = std::max(W, Vec::lanes);

    std::int64_t table_size(const CodedStretch& stretch) const {
        return static_cast<std::int64_t>(blocks_) * args_.parts * stretch.clusters * W;
    }

    // [row, block, part, cluster, W] of every stretch; heads that only fill a block score 0.
    void lay_out_tables() {
        std::int64_t table = 0;
        for (const CodedStretch& stretch : args_.stretches) {
            const std::int64_t entries = static_cast<std::int64_t>(args_.parts) * stretch.clusters;
            for (std::int64_t row = 0; row < args_.rows; ++row)
                for (std::int64_t entry = 0; entry < entries; ++entry)
                    for (int head = 0; head < args_.row_heads; ++head)
                        tables_[table + ((row * blocks_ + head / W) * entries + entry) * W + head % W] =
                            stretch.table[(row * entries + entry) * args_.row_heads + head];
            table += args_.rows * table_size(stretch);
        }
    }

    const float* table(const CodePiece& piece, std::int64_t row, int block) const {
        const std::int64_t entries = static_cast<std::int64_t>(args_.parts) * piece.stretch->clusters;
        return &tables_[piece.table + (row * blocks_ + block) * entries * W];
    }

    const std::uint8_t* codes(const CodePiece& piece, std::int64_t row, int part) const {
        const std::int64_t group = row * args_.groups / args_.rows;
        return piece.stretch->code + (group * args_.parts + part) * piece.stretch->tokens + piece.begin;
    }

    // Adds the entries of a part; copies those of the first.
    template <bool First>
    static void add_entries(const float* __restrict entries, const std::uint8_t* __restrict code, std::int64_t size,
                            float* __restrict score) {
        for (std::int64_t t = 0; t < size; ++t) {
            Heads sum, before{};
            std::memcpy(&sum, entries + code[t] * W, sizeof sum);
            if constexpr (!First) std::memcpy(&before, score + t * W, sizeof before);
            sum += before;
            std::memcpy(score + t * W, &sum, sizeof sum);
        }
    }

    // score[t * W + w] of a piece for one block of heads; -infinity up to the next whole span.
    void look_up(const CodePiece& piece, std::int64_t row, int block, float* score) const {
        const float* entries = table(piece, row, block);
        for (int part = 0; part < args_.parts; ++part, entries += static_cast<std::int64_t>(piece.stretch->clusters) * W)
            if (part == 0) add_entries<true>(entries, codes(piece, row, part), piece.size, score);
            else add_entries<false>(entries, codes(piece, row, part), piece.size, score);
        std::fill(score + piece.size * W, score + whole(piece), minus_infinity);
    }

    static std::int64_t whole(const CodePiece& piece) { return (piece.size * W + span - 1) / span * span; }

    float* of_piece(std::vector<float>& numbers, std::int64_t row, std::int64_t p, int block) const {
        return &numbers[(row * static_cast<std::int64_t>(pieces_.size()) + p) * padded_ + block * W];
    }

    // The numbers of a block of heads, again and again.
    static void repeat(const float* numbers, float (&pattern)[span]) {
        for (int i = 0; i < span; ++i) pattern[i] = numbers[i % W];
    }

    // Each head's largest score of a piece, and the sum of its exponentials relative to it.
    void sum_piece(std::int64_t row, std::int64_t p, float* score) {
        const CodePiece& piece = pieces_[p];
        for (int block = 0; block < blocks_; ++block) {
            look_up(piece, row, block, score);
            alignas(64) float most[span], sums[span];
            Vec best[span / Vec::lanes], total[span / Vec::lanes];
            for (Vec& each : best) each = broadcast(minus_infinity);
            for (std::int64_t i = 0; i < whole(piece); i += span)
                for (int v = 0; v < span / Vec::lanes; ++v) best[v] = max(load(score + i + v * Vec::lanes), best[v]);
            for (int v = 0; v < span / Vec::lanes; ++v) store(most + v * Vec::lanes, best[v]);
            float* top = of_piece(top_, row, p, block);
            std::copy_n(most, W, top);
            for (int i = W; i < span; ++i) top[i % W] = std::max(top[i % W], most[i]);
            repeat(top, most);
            for (Vec& each : total) each = broadcast(0.0F);
            for (std::int64_t i = 0; i < whole(piece); i += span)
                for (int v = 0; v < span / Vec::lanes; ++v)
                    total[v] = total[v] + exp(load(score + i + v * Vec::lanes) - load(most + v * Vec::lanes));
            for (int v = 0; v < span / Vec::lanes; ++v) store(sums + v * Vec::lanes, total[v]);
            float* sum = of_piece(total_, row, p, block);
            std::fill_n(sum, W, 0.0F);
            for (int i = 0; i < span; ++i) sum[i % W] += sums[i];
        }
    }

    // The log-sum-exp of each head, where the largest score of its first piece was; +infinity where there is no head.
    void finish_sums(std::int64_t row) {
        const std::int64_t pieces = static_cast<std::int64_t>(pieces_.size());
        float* top = of_piece(top_, row, 0, 0);
        const float* total = of_piece(total_, row, 0, 0);
        for (int head = 0; head < padded_; ++head) {
            float most = minus_infinity, sum = 0.0F;
            for (std::int64_t p = 0; p < pieces; ++p) most = std::max(most, top[p * padded_ + head]);
            for (std::int64_t p = 0; p < pieces; ++p) sum += total[p * padded_ + head] * std::exp(top[p * padded_ + head] - most);
            top[head] = head < args_.row_heads ? most + std::log(sum) : -minus_infinity;
        }
    }

    // The weights of a piece, summed over the heads of the row; 0 where they are too small to be told apart so.
    void weigh_piece(std::int64_t row, std::int64_t p, float* score) {
        const CodePiece& piece = pieces_[p];
        float* weight = &weight_[row * tokens_ + piece.first];
        for (int block = 0; block < blocks_; ++block) {
            look_up(piece, row, block, score);
            alignas(64) float lse[span];
            repeat(of_piece(top_, row, 0, block), lse);
            for (std::int64_t i = 0; i < whole(piece); i += span)
                for (int v = 0; v < span; v += Vec::lanes) store(score + i + v, exp(load(score + i + v) - load(lse + v)));
            for (std::int64_t t = 0; t < piece.size; ++t) {
                float sum = block ? weight[t] : 0.0F;
                for (int w = 0; w < W; ++w) sum += score[t * W + w];
                weight[t] = sum;
            }
        }
        for (std::int64_t t = 0; t < piece.size; ++t) weight[t] = weight[t] < least_weight ? 0.0F : weight[t];
    }

    // Gives weights that vanished an order, below all others: with x the logarithm of such a weight, -1e-31 / x.
    void tell_apart(std::int64_t row) {
        std::vector<float> share(padded_);
        const float* lse = of_piece(top_, row, 0, 0);
        for (const CodePiece& piece : pieces_)
            for (std::int64_t t = 0; t < piece.size; ++t) {
                float& weight = weight_[row * tokens_ + piece.first + t];
                if (weight > 0.0F) continue;
                for (int head = 0; head < args_.row_heads; ++head) {
                    share[head] = -lse[head];
                    for (int part = 0; part < args_.parts; ++part) {
                        const std::int64_t entry = static_cast<std::int64_t>(part) * piece.stretch->clusters + codes(piece, row, part)[t];
                        share[head] += table(piece, row, head / W)[entry * W + head % W];
                    }
                }
                const float most = *std::max_element(share.begin(), share.begin() + args_.row_heads);
                float sum = 0.0F;
                for (int head = 0; head < args_.row_heads; ++head) sum += std::exp(share[head] - most);
                weight = -1e-31F / (most + std::log(sum));
            }
    }

    const CodeSearchArgs& args_;
    int blocks_;
    int padded_;  // heads of a row, with those that fill blocks
    std::int64_t tokens_ = 0;
    std::vector<CodePiece> pieces_;
    std::vector<float> tables_, top_, total_;  // [row, piece, padded heads] the last two
    std::unique_ptr<float[]> weight_;          // [row, token]
};

inline void code_search(const CodeSearchArgs& args) {
    switch (std::min(16U, std::bit_ceil(static_cast<unsigned>(args.row_heads)))) {
        case 1: return CodeSearch<1>(args).run();
        case 2: return CodeSearch<2>(args).run();
        case 4: return CodeSearch<4>(args).run();
        case 8: return CodeSearch<8>(args).run();
        default: return CodeSearch<16>(args).run();
    }
}

}  // namespace longspan::LONGSPAN_ISA
