// The blocks in a cache, in the order in which they were read: one doubly linked list a level, its links array indices.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "longspan/block_cache_args.hpp"

namespace longspan {

struct HeldBlock {
    BlockName name;
    std::int64_t step;
    std::int32_t size, first_page, newer, older, level;
};

class HeldBlocks {
   public:
    static constexpr std::int32_t none = -1;
    static constexpr int levels = 16;

    HeldBlock& operator[](std::int32_t at) { return blocks_[at]; }
    const HeldBlock& operator[](std::int32_t at) const { return blocks_[at]; }
    std::size_t size() const { return blocks_.size(); }
    void resize(std::size_t size) { blocks_.resize(size); }
    std::int32_t oldest(int level) const { return orders_[level].oldest; }

    // As the newest of its level.
    void link(std::int32_t at, int level) {
        Order& order = orders_[level];
        HeldBlock& held = blocks_[at];
        held.level = level;
        held.newer = none;
        held.older = order.newest;
        (order.newest == none ? order.oldest : blocks_[order.newest].newer) = at;
        order.newest = at;
    }

    void unlink(std::int32_t at) {
        const HeldBlock& held = blocks_[at];
        Order& order = orders_[held.level];
        (held.newer == none ? order.newest : blocks_[held.newer].older) = held.older;
        (held.older == none ? order.oldest : blocks_[held.older].newer) = held.newer;
    }

    // Each level into the one of half its number, behind what is there.
    void halve_levels() {
        for (int level = 1; level < levels; ++level)
            while (orders_[level].oldest != none) {
                const std::int32_t at = orders_[level].oldest;
                unlink(at);
                link(at, level / 2);
            }
    }

   private:
    struct Order {
        std::int32_t newest = none, oldest = none;
    };

    std::vector<HeldBlock> blocks_;
    Order orders_[levels];
};

}  // namespace longspan
