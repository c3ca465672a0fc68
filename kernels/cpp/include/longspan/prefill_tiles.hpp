// The pieces of work of prefill attention.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "longspan/block_sparse_prefill_args.hpp"

namespace longspan::LONGSPAN_ISA {

// Positions of a head that share a row of the choice.
struct PrefillTile {
    std::int64_t head;
    std::int64_t block;  // row of the choice
    std::int64_t first;  // position
    int count;
    std::int64_t limit;  // the first position sees entries up to this one, each next position one more
};

// Tiles of at most `most` positions for the heads of the groups [begin, end), the longest first.
inline std::vector<PrefillTile> prefill_tiles(const BlockSparseArgs& args, std::int64_t most, std::int64_t begin,
                                              std::int64_t end) {
    std::vector<PrefillTile> tiles;
    const std::int64_t block = args.blocks ? args.block : most;
    const std::int64_t height = (args.positions + block - 1) / block, share = args.heads / args.groups;
    for (std::int64_t x = height; x-- > 0;)
        for (std::int64_t first = x * block; first < std::min((x + 1) * block, args.positions); first += most) {
            const std::int64_t stop = std::min({(x + 1) * block, args.positions, first + most});
            const std::int64_t limit = args.causal ? first + args.entries - args.positions : args.entries - 1;
            for (std::int64_t head = begin * share; head < end * share; ++head)
                tiles.push_back({head, x, first, static_cast<int>(stop - first), limit});
        }
    return tiles;
}

}  // namespace longspan::LONGSPAN_ISA
