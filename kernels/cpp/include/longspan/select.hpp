// The best of many votes, without sorting them all.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <vector>

namespace longspan::LONGSPAN_ISA {

// Non-negative votes are ordered as these bits are, which are positive; 0 for negative votes. + 0.0F: -0.0 counts as 0.
// NaN is the largest, as it is in the reference: what is no number must not look like nothing.
inline std::int32_t order_bits(float vote) {
    const auto bits = static_cast<std::int32_t>(std::bit_cast<std::uint32_t>(vote + 0.0F) & 0x7fffffffU);
    return vote < 0.0F ? 0 : std::min(bits, 0x7f800001) + 1;
}

// Finds the `first` largest and the `second` next largest of non-negative votes; negative votes do not take part.
// The border is found bit by bit, by counting what lies above it, which the compiler does a vector at a time, soon among few.
// Ties go to the lower id.
class TwoTier {
   public:
    std::vector<std::int32_t> first, second;  // ids: `first` best first, `second` ascending

    void select(const float* vote, std::int64_t count, std::int64_t want_first, std::int64_t want_second) {
        largest(vote, count, want_first + want_second, second);
        for (std::size_t i = 0; i < second.size(); ++i) bits_[i] = bits_[second[i]];
        bits_.resize(second.size());
        keep(want_first, first);
        split();
        std::sort(first.begin(), first.end(), [vote](std::int32_t a, std::int32_t b) {
            const std::int32_t left = order_bits(vote[a]), right = order_bits(vote[b]);
            return left != right ? left > right : a < b;
        });
    }

    // Ids of the `want` largest votes, ascending.
    void largest(const float* vote, std::int64_t count, std::int64_t want, std::vector<std::int32_t>& ids) {
        id_.resize(count + 1);
        bits_.resize(count);
        for (std::int64_t i = 0; i < count; ++i) bits_[i] = order_bits(vote[i]);
        keep(want, ids);
    }

   private:
    static std::int64_t at_least(const std::vector<std::int32_t>& all, std::int32_t bound) {
        std::int32_t above = 0;  // as wide as what it counts: the compiler then needs no widening
        for (std::int32_t bits : all) above += bits >= bound;
        return above;
    }

    // What is no smaller than the border, the only ones that a higher border could part.
    void narrow(std::int32_t border, std::int64_t reach) {
        above_.resize(bits_.size());
        std::int64_t kept = 0;
        for (std::int32_t bits : bits_) above_[kept] = bits, kept += bits >= border;
        above_.resize(reach);
    }

    // Places of the `want` largest of `bits_`, ascending; fewer where fewer take part.
    void keep(std::int64_t want, std::vector<std::int32_t>& places) {
        std::int32_t border = 0;  // the largest bound that `want` reach; 0 where fewer take part
        const std::vector<std::int32_t>* all = &bits_;
        std::int64_t reach = bits_.size();
        for (std::int32_t bit = 1 << 30; bit > 0 && reach != want; bit >>= 1) {
            const std::int64_t count = at_least(*all, border + bit);
            if (count < want) continue;
            border += bit, reach = count;
            if (all == &bits_ && reach * 8 < static_cast<std::int64_t>(bits_.size())) narrow(border, reach), all = &above_;
        }
        // how many of those on the border are in too
        std::int64_t room = border > 0 ? want - at_least(*all, border + 1) : 0;
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

    std::vector<std::int32_t> id_, bits_, above_;
};

}  // namespace longspan::LONGSPAN_ISA
