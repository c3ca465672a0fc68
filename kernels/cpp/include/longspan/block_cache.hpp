// Which blocks of a store are in a cache: the mapping table, the order in which they go, the free pages.
//
// No memory is moved here and none is allocated a block: blocks are entries of arrays, linked by their numbers; the pages
// of a block are a chain through `next_page_`, the free ones a stack.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "longspan/block_cache_args.hpp"
#include "longspan/held_blocks.hpp"

namespace longspan {

class BlockCache {
   public:
    explicit BlockCache(const CacheOptions& options) : options_(options) { grow(options.pages); }

    // More pages; what is cached stays.
    void grow(std::int64_t pages) {
        const auto before = static_cast<std::int64_t>(next_page_.size());
        options_.pages = std::max(pages, before);
        next_page_.resize(options_.pages, none);
        held_.resize(options_.pages);
        for (std::int64_t page = options_.pages; page-- > before;) {
            free_pages_.push_back(static_cast<std::int32_t>(page));
            free_held_.push_back(static_cast<std::int32_t>(page));
        }
    }

    // Changes nothing, so that it needs no waiting.
    LookUp look_up(const RunsView& runs) const {
        LookUp found;
        found.pages = PageLists(runs.rows);
        found.lengths.assign(runs.rows, 0);
        found.targets.assign(runs.rows * runs.width, 0);
        for (std::int64_t rank = 0; rank < runs.width; ++rank)
            for (std::int64_t row = 0; row < runs.rows; ++row)
                if (rank < runs.counts[row]) read(runs, row, rank, found);
        return found;
    }

    // What a step read becomes the newest; misses are let in, the best first. The best ends as the newest.
    Admission update(const LookUp& found, const Admitting& how = {}) {
        Admission admission;
        admission.pages = PageLists(found.pages.rows());
        admitting_ = how;
        ++step_;
        for (const BlockRead& read : found.reads) count(read.block);
        for (auto read = found.reads.rbegin(); read != found.reads.rend(); ++read)
            if (const std::int32_t at = entry(read->block); at != none && held_[at].size == read->size) touch(at);
        admitted_.clear();
        for (const BlockRead& read : found.reads) admit(read, admission);
        for (auto at = admitted_.rbegin(); at != admitted_.rend(); ++at) held_.link(*at, level_of(held_[*at].block));
        return admission;
    }

    const CacheOptions& options() const { return options_; }
    std::int64_t free_pages() const { return static_cast<std::int64_t>(free_pages_.size()); }
    std::int64_t blocks() const { return static_cast<std::int64_t>(held_.size() - free_held_.size()); }

   private:
    static constexpr std::int32_t none = HeldBlocks::none;

    std::int32_t entry(std::int64_t block) const {
        return block < static_cast<std::int64_t>(entry_of_.size()) ? entry_of_[block] : none;
    }
    std::int64_t pages_of(std::int64_t size) const { return (size + options_.page - 1) / options_.page; }
    int level_of(std::int64_t block) const { return options_.policy == CachePolicy::lfu ? reads_[block] : 0; }

    void read(const RunsView& runs, std::int64_t row, std::int64_t rank, LookUp& found) const {
        const std::int64_t at = row * runs.width + rank, page = options_.page;
        const std::int32_t start = runs.starts[at], size = runs.sizes ? runs.sizes[at] : 1;
        const std::int64_t block = std::int64_t{start} * options_.groups + row * options_.groups / runs.rows;
        const auto target = static_cast<std::int32_t>(found.lengths[row]);
        found.targets[at] = target;
        if (size <= 0) return;
        const std::int32_t held = entry(block);
        const bool hit = held != none && held_[held].size == size;
        std::int32_t next = hit ? held_[held].first_page : none;
        for (std::int64_t t = 0; t < size; t += page) {
            found.pages.add(row, hit ? next * page : ~(start + t), target + t, std::min(page, size - t));
            if (hit) next = next_page_[next];
        }
        found.lengths[row] += size;
        (hit ? found.hit_blocks : found.miss_blocks) += 1;
        (hit ? found.hit_entries : found.miss_entries) += size;
        found.reads.push_back({block, static_cast<std::int32_t>(row), start, size, target, hit});
    }

    void count(std::int64_t block) {
        if (block >= static_cast<std::int64_t>(entry_of_.size())) {
            const auto blocks = std::max<std::int64_t>(block + 1, static_cast<std::int64_t>(entry_of_.size()) * 3 / 2);
            entry_of_.resize(blocks, none);
            reads_.resize(blocks, 0);
        }
        if (options_.policy == CachePolicy::lru) return;
        blocks_ = std::max(blocks_, block + 1);
        if (++counted_ > std::max(16 * options_.pages, blocks_ / 64)) age();  // which takes time by the block
        reads_[block] = static_cast<std::uint8_t>(std::min(reads_[block] + 1, HeldBlocks::levels - 1));
    }

    // Halves all counts, lest what was read long ago stay for ever.
    void age() {
        counted_ /= 2;
        for (std::uint8_t& reads : reads_) reads /= 2;
        if (options_.policy != CachePolicy::lfu) return;
        held_.halve_levels();
    }

    void touch(std::int32_t at) {
        held_[at].step = step_;
        held_.unlink(at);
        held_.link(at, level_of(held_[at].block));
    }

    void evict(std::int32_t at) {
        held_.unlink(at);
        for (std::int32_t page = held_[at].first_page; page != none; page = next_page_[page]) free_pages_.push_back(page);
        entry_of_[held_[at].block] = none;
        free_held_.push_back(at);
    }

    bool may_replace(std::int64_t block, const HeldBlock& victim) const {
        if (victim.step == step_) return false;
        if (options_.policy == CachePolicy::tinylfu) return reads_[block] > reads_[victim.block];
        return level_of(block) >= victim.level;
    }

    // Frees as many pages as are wanted, or nothing: a block that does not get in throws none out.
    bool make_room(std::int64_t block, std::int64_t wanted, Admission& admission) {
        std::int64_t room = free_pages();
        victims_.clear();
        for (int level = 0; level < HeldBlocks::levels; ++level)
            for (std::int32_t at = held_.oldest(level); at != none && room < wanted; at = held_[at].newer) {
                if (!may_replace(block, held_[at])) break;
                victims_.push_back(at);
                room += pages_of(held_[at].size);
            }
        if (room < wanted) return false;
        for (std::int32_t at : victims_) evict(at);
        admission.evicted_blocks += static_cast<std::int64_t>(victims_.size());
        return true;
    }

    void admit(const BlockRead& read, Admission& admission) {
        const std::int32_t old = entry(read.block);
        if (read.hit || (old != none && held_[old].size == read.size)) return;
        if (old != none && held_[old].step == step_) return;  // another row of this step takes it for what it was
        if (old != none) evict(old);  // the block is another one by now
        const std::int64_t page = options_.page, pages = pages_of(read.size);
        if (admission.admitted_pages + pages > admitting_.most_pages || !make_room(read.block, pages, admission)) return;
        const std::int32_t at = free_held_.back();
        free_held_.pop_back();
        held_[at] = {read.block, step_, read.size, none, none, none, 0};
        const std::int32_t from = admitting_.from_store ? read.start : read.target;
        std::int32_t* link_to = &held_[at].first_page;
        for (std::int64_t t = 0; t < read.size; t += page) {
            const std::int32_t next = free_pages_.back();
            free_pages_.pop_back();
            *link_to = next;
            link_to = &next_page_[next];
            *link_to = none;
            admission.pages.add(read.row, next * page, from + t, std::min(page, read.size - t));
        }
        admitted_.push_back(at);
        entry_of_[read.block] = at;
        ++admission.admitted_blocks;
        admission.admitted_pages += pages;
        admission.admitted_entries += read.size;
    }

    CacheOptions options_;
    std::vector<std::int32_t> entry_of_;   // the mapping table: block to what is held, or none
    std::vector<std::uint8_t> reads_;      // how often each block was read, halved now and then
    HeldBlocks held_;                      // blocks in the cache; for lfu at the level of their reads, else all at 0
    std::vector<std::int32_t> free_held_;  // stacks
    std::vector<std::int32_t> free_pages_;
    std::vector<std::int32_t> next_page_;  // of the same block
    std::vector<std::int32_t> victims_;    // scratch of `make_room`
    std::vector<std::int32_t> admitted_;   // scratch of `update`: not linked yet, so that no one throws them out
    Admitting admitting_;                  // of the update under way
    std::int64_t step_ = 0, counted_ = 0, blocks_ = 0;
};

}  // namespace longspan
