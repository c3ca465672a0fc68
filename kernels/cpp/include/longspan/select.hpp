// The best few of many votes, without sorting them all.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <vector>

namespace longspan::LONGSPAN_ISA {

// Finds the `first` largest and the `second` next largest of non-negative votes; negative votes do not take part.
// One histogram over sign, exponent and three bits of mantissa tells which votes are in and which are out; only the bins
// on the two borders need comparing. Ties go to the lower id.
class TwoTier {
   public:
    std::vector<std::int32_t> first, second;  // ids: `first` best first, `second` ascending

    void select(const float* vote, std::int64_t count, std::int64_t want_first, std::int64_t want_second) {
        histogram_.assign(bins, 0);
        for (std::int64_t i = 0; i < count; ++i)
            if (vote[i] >= 0.0F) ++histogram_[bin(vote[i])];
        const Border inner = border(want_first), outer = border(want_first + want_second);
        first.clear();
        second.clear();
        inner_.clear();
        outer_.clear();
        for (std::int64_t i = 0; i < count; ++i) {
            if (!(vote[i] >= 0.0F)) continue;
            const int at = bin(vote[i]);
            if (at < outer.bin) continue;
            const auto id = static_cast<std::int32_t>(i);
            if (at > inner.bin) first.push_back(id);
            else if (at == inner.bin) inner_.push_back(id);
            else if (at > outer.bin) second.push_back(id);
            else outer_.push_back(id);
        }
        settle(vote, inner, outer);
    }

   private:
    static constexpr int shift = 20;
    static constexpr int bins = 1 << (31 - shift);

    struct Border {
        int bin;            // everything above is in
        std::int64_t room;  // how many of this bin are in too
    };

    // + 0.0F: a vote of -0.0 counts as 0
    static int bin(float vote) { return static_cast<int>(std::bit_cast<std::uint32_t>(vote + 0.0F) >> shift); }

    Border border(std::int64_t want) const {
        int at = bins;
        std::int64_t above = 0;
        while (at > 0 && above < want) above += histogram_[--at];
        return {at, at < bins ? want - above + histogram_[at] : 0};
    }

    void settle(const float* vote, Border inner, Border outer) {
        const auto better = [vote](std::int32_t a, std::int32_t b) {
            return vote[a] != vote[b] ? vote[a] > vote[b] : a < b;
        };
        const auto cut = [&](std::vector<std::int32_t>& ids, std::int64_t room) {
            const auto middle = ids.begin() + std::min<std::int64_t>(room, ids.size());
            if (middle != ids.end()) std::nth_element(ids.begin(), middle, ids.end(), better);
            return middle;
        };
        const auto scanned = static_cast<std::ptrdiff_t>(second.size());  // these are ascending already
        if (inner.bin == outer.bin) {  // both borders in one bin: drop what is beyond the outer one first
            inner_.erase(cut(inner_, outer.room), inner_.end());
        } else {
            second.insert(second.end(), outer_.begin(), cut(outer_, outer.room));
        }
        const auto middle = cut(inner_, inner.room);
        first.insert(first.end(), inner_.begin(), middle);
        second.insert(second.end(), middle, inner_.end());
        std::sort(first.begin(), first.end(), better);
        std::sort(second.begin() + scanned, second.end());
        std::inplace_merge(second.begin(), second.begin() + scanned, second.end());
    }

    std::vector<std::int64_t> histogram_;
    std::vector<std::int32_t> inner_, outer_;
};

}  // namespace longspan::LONGSPAN_ISA
