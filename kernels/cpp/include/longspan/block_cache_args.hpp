// What a block cache is asked and what it answers.
#pragma once

#include <cstdint>
#include <limits>
#include <stdexcept>
#include <vector>

#include "longspan/decode_args.hpp"

namespace longspan {

// lru: every block is let in, the one not read for longest goes. tinylfu: the same one goes, but only for a block that was
// read more often. lfu: the one read least often goes, for a block read at least as often. Counts are halved now and then.
enum class CachePolicy { lru, tinylfu, lfu };

struct CacheOptions {
    std::int64_t pages;  // capacity
    int page;            // entries a page
    int groups;          // KV heads a layer
    CachePolicy policy;
    int layers = 1;      // all of which share the pages
};

// Pages to copy, [rows, width] once `finish` has been called; see page_gather.hpp.
struct PageLists {
    std::vector<std::vector<std::int32_t>> sources, targets, sizes;  // a row each

    explicit PageLists(std::int64_t rows = 0) : sources(rows), targets(rows), sizes(rows) {}
    void add(std::int64_t row, std::int64_t source, std::int64_t target, std::int64_t size) {
        sources[row].push_back(static_cast<std::int32_t>(source));
        targets[row].push_back(static_cast<std::int32_t>(target));
        sizes[row].push_back(static_cast<std::int32_t>(size));
    }
    std::int64_t rows() const { return static_cast<std::int64_t>(sources.size()); }
    std::int64_t width() const {
        std::size_t most = 0;
        for (const auto& row : sources) most = row.size() > most ? row.size() : most;
        return static_cast<std::int64_t>(most);
    }
};

// A run of a layer's store, named by its first slot.
struct BlockName {
    std::int64_t block;  // slot * groups + group
    std::int32_t layer;
};

// One block that a step reads.
struct BlockRead {
    BlockName name;
    std::int32_t row;
    std::int32_t start;
    std::int32_t size;
    std::int32_t target;  // its first entry in the buffer
    bool hit;
};

// What a look-up found: where everything is to be copied from, and the blocks in the order of their rank.
struct LookUp {
    PageLists pages;
    std::vector<BlockRead> reads;       // the best of every row, then the second best, ...
    std::vector<std::int32_t> targets;  // [rows, width of the runs]; beyond the count: unspecified
    std::vector<std::int64_t> lengths;  // entries of the buffer, a row each
    int layer = 0;
    std::int64_t hit_blocks = 0, miss_blocks = 0, hit_entries = 0, miss_entries = 0;
};

// What a cache is asked names blocks: slots and sizes are not negative. Throws std::invalid_argument.
inline void check_runs(const RunsView& runs) {
    for (std::int64_t row = 0; row < runs.rows; ++row) {
        if (runs.counts[row] < 0 || runs.counts[row] > runs.width)
            throw std::invalid_argument("a row counts more runs than it has");
        for (std::int64_t at = row * runs.width; at < row * runs.width + runs.counts[row]; ++at)
            if (runs.starts[at] < 0 || (runs.sizes && runs.sizes[at] < 0))
                throw std::invalid_argument("a run begins before slot 0 or has a negative size");
    }
}

// Where an update's copies come from, and how many pages it may let in at most.
struct Admitting {
    bool from_store = false;  // targets are slots of the store, in place of entries of the buffer
    std::int64_t most_pages = std::numeric_limits<std::int64_t>::max();
};

// What an update let in: copies to the cache.
struct Admission {
    PageLists pages;
    std::int64_t admitted_blocks = 0, admitted_pages = 0, admitted_entries = 0, evicted_blocks = 0;
};

}  // namespace longspan
