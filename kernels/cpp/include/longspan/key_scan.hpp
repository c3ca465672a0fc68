// The best keys of every query by a scan of their int8 codes, in the order in which they lie, for all heads of a group together.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <vector>

#include "longspan/exact_order.hpp"
#include "longspan/key_scan_args.hpp"
#include "longspan/scan_products.hpp"

namespace longspan::LONGSPAN_ISA {

class KeyScan {
  public:
    explicit KeyScan(const KeyScanArgs& args) : args_(args), a_group_(args.heads / args.groups) {
        std::int64_t tokens = 0;
        for (const ScanStretch& stretch : args.stretches) tokens += stretch.tokens;
        // more pieces than one a group where there are more threads than groups
        const std::int64_t a_piece = std::max(least_piece, tokens * args.groups / (2 * args.threads) + 1);
        std::int64_t first = 0;
        for (std::size_t s = 0; s < args.stretches.size(); ++s) {
            for (std::int64_t begin = 0; begin < args.stretches[s].tokens; begin += a_piece)
                pieces_.push_back({s, begin, std::min(begin + a_piece, args.stretches[s].tokens), first});
            first += args.stretches[s].tokens;
        }
        queries_.resize(args.stretches.size() * args.heads);
        found_.resize(pieces_.size() * args.heads);
    }

    void run() {
        const auto items = static_cast<std::int64_t>(pieces_.size()) * args_.groups;
#pragma omp parallel num_threads(args_.threads) if (args_.threads > 1)
        {
#pragma omp for schedule(static)
            for (std::size_t q = 0; q < queries_.size(); ++q) code(q);
#pragma omp for schedule(dynamic, 1)
            for (std::int64_t item = 0; item < items; ++item) scan(item / args_.groups, static_cast<int>(item % args_.groups));
#pragma omp for schedule(dynamic, 1)
            for (int head = 0; head < args_.heads; ++head) report(head);
        }
    }

  private:
    struct Piece {
        std::size_t stretch;
        std::int64_t begin, end;  // within the stretch
        std::int64_t first;       // token of the stretch's first
    };
    static constexpr std::int64_t least_piece = 4096;
    static constexpr int block = 64;    // codes that stay in the first cache while every head of a group reads them
    static constexpr int sampled = 16;  // one block of so many says from where on scores are of interest
    static constexpr float nothing = -std::numeric_limits<float>::infinity();

    void code(std::size_t q) {
        const float* weights = args_.stretches[q / args_.heads].weights + static_cast<std::int64_t>(q % args_.heads) * args_.width;
        queries_[q].weights.assign(weights, weights + args_.width);
        quantise_query(queries_[q]);
    }

    void scan(std::int64_t p, int group) {
        const Piece& piece = pieces_[p];
        BestOf* best = &found_[p * args_.heads + group * a_group_];
        const std::int64_t tokens = piece.end - piece.begin, wanted = std::min<std::int64_t>(args_.candidates, tokens);
        std::vector<float> bound(static_cast<std::size_t>(a_group_), nothing);
        if (tokens >= sampled / 2 * wanted) sample(piece, group, bound.data());
        pass(piece, group, 1, args_.candidates, best, bound.data());
        if (std::all_of(best, best + a_group_, [&](const BestOf& each) { return each.found.size() >= static_cast<std::size_t>(wanted); })) return;
        std::fill(bound.begin(), bound.end(), nothing);  // the sample promised too much
        for (int h = 0; h < a_group_; ++h) best[h].found.clear();
        pass(piece, group, 1, args_.candidates, best, bound.data());
    }

    // Bounds that somewhat more than the wanted scores of a piece are expected to pass.
    void sample(const Piece& piece, int group, float* bound) {
        const int most = args_.candidates / sampled * 5 / 4 + 8;
        std::vector<BestOf> best(static_cast<std::size_t>(a_group_));
        pass(piece, group, sampled, most, best.data(), bound);
        for (int h = 0; h < a_group_; ++h) lift(best[h], most, bound[h]);
    }

    // Collects the best `most` of every `step`-th block, and the next few, of what is greater than the bounds, which rise.
    void pass(const Piece& piece, int group, int step, int most, BestOf* best, float* bound) {
        const ScanStretch& stretch = args_.stretches[piece.stretch];
        const std::int8_t* codes = stretch.codes + group * stretch.tokens * args_.width;
        const CodedQuery* queries = &queries_[piece.stretch * args_.heads + group * a_group_];
        const std::int64_t room = std::min<std::int64_t>(2 * most + 16, piece.end - piece.begin);
        for (int h = 0; h < a_group_; ++h) best[h].found.reserve(static_cast<std::size_t>(room));
        alignas(64) float scores[scanned_together][block];
        for (std::int64_t begin = piece.begin; begin < piece.end; begin += std::int64_t{step} * block) {
            const int count = static_cast<int>(std::min<std::int64_t>(block, piece.end - begin));
            for (int first = 0; first < a_group_; first += scanned_together) {
                const int heads = std::min(scanned_together, a_group_ - first);
                score(queries + first, heads, codes + begin * args_.width, count, scores);
                for (int h = 0; h < heads; ++h) {
                    BestOf& kept = best[first + h];
                    const float* score = scores[h];
                    for (int i = 0; i < block; i += Vec::lanes)
                        for (std::uint32_t good = positive(load(score + i) - broadcast(bound[first + h])); good != 0; good &= good - 1) {
                            const int at = i + std::countr_zero(good);
                            kept.found.push_back(rank_key(score[at], static_cast<std::uint32_t>(piece.first + begin + at)));
                            if (kept.found.size() >= static_cast<std::size_t>(2 * most + 16)) lift(kept, most, bound[first + h]);
                        }
                }
            }
        }
    }

    // Of `count` codes, for up to four heads; what is beyond scores nothing.
    void score(const CodedQuery* queries, int heads, const std::int8_t* codes, int count, float (*scores)[block]) const {
        const std::int16_t* weights[scanned_together];
        float units[scanned_together];
        for (int h = 0; h < heads; ++h) weights[h] = queries[h].quantised.data(), units[h] = queries[h].unit;
        for (int i = 0; i < count; i += 4) {
            const std::int8_t* rows[4];
            float* to[scanned_together];
            for (int r = 0; r < 4; ++r) rows[r] = codes + std::int64_t{std::min(i + r, count - 1)} * args_.width;
            for (int h = 0; h < heads; ++h) to[h] = scores[h] + i;
            if (heads == scanned_together) scan_products(weights, units, rows, args_.width, to);
            else
                for (int h = 0; h < heads; ++h) scan_one(weights[h], units[h], rows, args_.width, to[h]);
        }
        for (int h = 0; h < heads; ++h) std::fill(scores[h] + count, scores[h] + block, nothing);
    }

    // Drops all but the best. Equal scores differ by their token: what ties with the worst kept stays in the running.
    static void lift(BestOf& best, int most, float& bound) {
        if (best.found.size() < static_cast<std::size_t>(most)) return;
        float worst = nothing;
        best.shrink(most, worst);
        bound = std::nextafter(worst, nothing);
    }

    void report(int head) {
        std::vector<std::uint64_t> all;
        for (std::size_t p = 0; p < pieces_.size(); ++p) {
            const std::vector<std::uint64_t>& found = found_[p * args_.heads + head].found;
            all.insert(all.end(), found.begin(), found.end());
        }
        const auto kept = std::min<std::size_t>(all.size(), args_.candidates);
        if (kept < all.size()) std::nth_element(all.begin(), all.begin() + kept, all.end(), std::greater<>());
        if (args_.keys.parts.empty())
            std::sort(all.begin(), all.begin() + kept, std::greater<>());
        else
            order_exactly(args_.keys, head, args_.queries + static_cast<std::int64_t>(head) * args_.head_size, args_.head_size,
                          all.data(), static_cast<int>(kept), [](std::uint32_t token) { return std::int64_t{token}; });
        for (int i = 0; i < args_.k; ++i)
            args_.ids[static_cast<std::int64_t>(head) * args_.k + i] = static_cast<std::int32_t>(node_of(all[i]));
    }

    const KeyScanArgs& args_;
    const int a_group_;
    std::vector<Piece> pieces_;
    std::vector<CodedQuery> queries_;  // [stretches, heads]
    std::vector<BestOf> found_;        // [pieces, heads]
};

inline void key_scan(const KeyScanArgs& args) { KeyScan(args).run(); }

}  // namespace longspan::LONGSPAN_ISA
