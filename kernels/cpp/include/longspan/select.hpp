// The best few of many votes, without sorting them all.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <vector>

namespace longspan::LONGSPAN_ISA {

// Finds the `first` largest and the `second` next largest of non-negative votes; negative votes do not take part.
// Non-negative floats are ordered as their bits are: the border is found bit by bit, by counting what lies above it, which
// the compiler does a vector at a time. Ties go to the lower id.
class TwoTier {
   public:
    std::vector<std::int32_t> first, second;  // ids: `first` best first, `second` ascending

    void select(const float* vote, std::int64_t count, std::int64_t want_first, std::int64_t want_second) {
        id_.resize(count + 1);
        bits_.resize(count);
        for (std::int64_t i = 0; i < count; ++i) {  // + 0.0F: a vote of -0.0 counts as 0; 0 does not take part
            const auto bits = static_cast<std::int32_t>(std::bit_cast<std::uint32_t>(vote[i] + 0.0F));
            bits_[i] = vote[i] >= 0.0F ? bits + 1 : 0;
        }
        keep(want_first + want_second, second);
        for (std::size_t i = 0; i < second.size(); ++i) bits_[i] = bits_[second[i]];
        bits_.resize(second.size());
        keep(want_first, first);
        split();
        std::sort(first.begin(), first.end(), [vote](std::int32_t a, std::int32_t b) {
            return vote[a] != vote[b] ? vote[a] > vote[b] : a < b;
        });
    }

   private:
    std::int64_t at_least(std::int32_t bound) const {
        std::int32_t above = 0;  // as wide as what it counts: the compiler then needs no widening
        for (std::int32_t bits : bits_) above += bits >= bound;
        return above;
    }

    // Places of the `want` largest of `bits_`, ascending; fewer where fewer take part.
    void keep(std::int64_t want, std::vector<std::int32_t>& places) {
        std::int32_t border = 0;  // the largest bound that `want` reach; 0 where fewer take part
        std::int64_t reach = bits_.size();
        for (std::int32_t bit = 1 << 30; bit > 0 && reach != want; bit >>= 1)
            if (const std::int64_t count = at_least(border + bit); count >= want) border += bit, reach = count;
        // how many of those on the border are in too
        std::int64_t room = border > 0 ? want - at_least(border + 1) : 0;
        std::int64_t kept = 0;
        const auto size = static_cast<std::int64_t>(bits_.size());
        for (std::int64_t i = 0; i < size; ++i) {
            const bool on = bits_[i] == border;
            const bool in = (bits_[i] > border) | (on & (room > 0));  // without branches: nobody can predict them
            room -= on;
            id_[kept] = static_cast<std::int32_t>(i);
            kept += in;
        }
        places.assign(id_.begin(), id_.begin() + kept);
    }

    // `first` are places within `second`: they become ids, and leave it.
    void split() {
        std::size_t next = 0, kept = 0;
        for (std::size_t i = 0; i < second.size(); ++i) {
            const std::int32_t id = second[i];
            if (next < first.size() && first[next] == static_cast<std::int32_t>(i)) first[next++] = id;
            else second[kept++] = id;
        }
        second.resize(kept);
    }

    std::vector<std::int32_t> id_, bits_;
};

}  // namespace longspan::LONGSPAN_ISA
