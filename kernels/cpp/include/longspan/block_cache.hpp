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
    explicit BlockCache(const CacheOptions& options) : options_(options), tables_(options.layers) { grow(options.pages); }

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
    LookUp look_up(const RunsView& runs, int layer = 0) const {
        LookUp found;
        found.layer = layer;
        found.pages = PageLists(runs.rows);
        found.lengths.assign(runs.rows, 0);
        found.targets.assign(runs.rows * runs.width, 0);
        for (std::int64_t rank = 0; rank < runs.width; ++rank)
            for (std::int64_t row = 0; row < runs.rows; ++row)
                if (rank < runs.counts[row]) read(runs, row, rank, found);
        return found;
    }

    // What a layer read becomes the newest; misses are let in, the best first. The best ends as the newest. A layer that is not
    // above the one before it begins a step.
    Admission update(const LookUp& found, const Admitting& how = {}) {
        Admission admission;
        admission.pages = PageLists(found.pages.rows());
        admitting_ = how;
        if (found.layer <= layer_) ++step_;
        layer_ = found.layer;
        for (const BlockRead& read : found.reads) count(read);
        for (auto read = found.reads.rbegin(); read != found.reads.rend(); ++read)
            if (const std::int32_t at = entry(read->name); at != none && held_[at].size == read->size) touch(at);
        admitted_.clear();
        for (const BlockRead& read : found.reads) admit(read, admission);
        for (auto at = admitted_.rbegin(); at != admitted_.rend(); ++at) held_.link(*at, level_of(held_[*at].name));
        return admission;
    }

    const CacheOptions& options() const { return options_; }
    std::int64_t free_pages() const { return static_cast<std::int64_t>(free_pages_.size()); }
    std::int64_t blocks() const { return static_cast<std::int64_t>(held_.size() - free_held_.size()); }

   private:
    static constexpr std::int32_t none = HeldBlocks::none;

    // Of one layer.
    struct Table {
        std::vector<std::int32_t> entry_of;  // the mapping table: block to what is held, or none
        std::vector<std::uint8_t> reads;     // how often each block was read, halved now and then
    };

    std::int32_t entry(const BlockName& name) const {
        const auto& entry_of = tables_[name.layer].entry_of;
        return name.block < static_cast<std::int64_t>(entry_of.size()) ? entry_of[name.block] : none;
    }
    std::int32_t& entry_of(const BlockName& name) { return tables_[name.layer].entry_of[name.block]; }
    int reads(const BlockName& name) const { return tables_[name.layer].reads[name.block]; }
    std::int64_t pages_of(std::int64_t size) const { return (size + options_.page - 1) / options_.page; }
    int level_of(const BlockName& name) const { return options_.policy == CachePolicy::lfu ? reads(name) : 0; }

    void read(const RunsView& runs, std::int64_t row, std::int64_t rank, LookUp& found) const {
        const std::int64_t at = row * runs.width + rank, page = options_.page;
        const std::int32_t start = runs.starts[at], size = runs.sizes ? runs.sizes[at] : 1;
        const BlockName name{std::int64_t{start} * options_.groups + row * options_.groups / runs.rows, found.layer};
        const auto target = static_cast<std::int32_t>(found.lengths[row]);
        found.targets[at] = target;
        if (size <= 0) return;
        const std::int32_t held = entry(name);
        const bool hit = held != none && held_[held].size == size;
        std::int32_t next = hit ? held_[held].first_page : none;
        for (std::int64_t t = 0; t < size; t += page) {
            found.pages.add(row, hit ? next * page : ~(start + t), target + t, std::min(page, size - t));
            if (hit) next = next_page_[next];
        }
        found.lengths[row] += size;
        (hit ? found.hit_blocks : found.miss_blocks) += 1;
        (hit ? found.hit_entries : found.miss_entries) += size;
        found.reads.push_back({name, static_cast<std::int32_t>(row), start, size, target, hit});
    }

    void count(const BlockRead& read) {
        auto& [entry_of, reads] = tables_[read.name.layer];
        const std::int64_t block = read.name.block;
        if (block >= static_cast<std::int64_t>(entry_of.size())) {
            const auto blocks = std::max<std::int64_t>(block + 1, static_cast<std::int64_t>(entry_of.size()) * 3 / 2);
            entry_of.resize(blocks, none);
            reads.resize(blocks, 0);
        }
        if (options_.policy == CachePolicy::lru) return;
        blocks_ = std::max(blocks_, (std::int64_t{read.start} + 1) * options_.groups * options_.layers);
        if (++counted_ > std::max(16 * options_.pages, blocks_ / 64)) age();  // which takes time by the block
        reads[block] = static_cast<std::uint8_t>(std::min(reads[block] + 1, HeldBlocks::levels - 1));
    }

    // Halves all counts, lest what was read long ago stay for ever.
    void age() {
        counted_ /= 2;
        for (Table& table : tables_)
            for (std::uint8_t& reads : table.reads) reads /= 2;
        if (options_.policy != CachePolicy::lfu) return;
        held_.halve_levels();
    }

    void touch(std::int32_t at) {
        held_[at].step = step_;
        held_.unlink(at);
        held_.link(at, level_of(held_[at].name));
    }

    void evict(std::int32_t at) {
        held_.unlink(at);
        for (std::int32_t page = held_[at].first_page; page != none; page = next_page_[page]) free_pages_.push_back(page);
        entry_of(held_[at].name) = none;
        free_held_.push_back(at);
    }

    bool may_replace(const BlockName& name, const HeldBlock& victim) const {
        if (victim.step == step_) return false;
        if (options_.policy == CachePolicy::tinylfu) return reads(name) > reads(victim.name);
        return level_of(name) >= victim.level;
    }

    // Frees as many pages as are wanted, or nothing: a block that does not get in throws none out.
    bool make_room(const BlockName& name, std::int64_t wanted, Admission& admission) {
        std::int64_t room = free_pages();
        victims_.clear();
        for (int level = 0; level < HeldBlocks::levels; ++level)
            for (std::int32_t at = held_.oldest(level); at != none && room < wanted; at = held_[at].newer) {
                if (!may_replace(name, held_[at])) break;
                victims_.push_back(at);
                room += pages_of(held_[at].size);
            }
        if (room < wanted) return false;
        for (std::int32_t at : victims_) evict(at);
        admission.evicted_blocks += static_cast<std::int64_t>(victims_.size());
        return true;
    }

    void admit(const BlockRead& read, Admission& admission) {
        const std::int32_t old = entry(read.name);
        if (read.hit || (old != none && held_[old].size == read.size)) return;
        if (old != none && held_[old].step == step_) return;  // another row of this step takes it for what it was
        if (old != none) evict(old);  // the block is another one by now
        const std::int64_t page = options_.page, pages = pages_of(read.size);
        if (admission.admitted_pages + pages > admitting_.most_pages || !make_room(read.name, pages, admission)) return;
        const std::int32_t at = free_held_.back();
        free_held_.pop_back();
        held_[at] = {read.name, step_, read.size, none, none, none, 0};
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
        entry_of(read.name) = at;
        ++admission.admitted_blocks;
        admission.admitted_pages += pages;
        admission.admitted_entries += read.size;
    }

    CacheOptions options_;
    std::vector<Table> tables_;            // by layer
    HeldBlocks held_;                      // blocks in the cache; for lfu at the level of their reads, else all at 0
    std::vector<std::int32_t> free_held_;  // stacks
    std::vector<std::int32_t> free_pages_;
    std::vector<std::int32_t> next_page_;  // of the same block
    std::vector<std::int32_t> victims_;    // scratch of `make_room`
    std::vector<std::int32_t> admitted_;   // scratch of `update`: not linked yet, so that no one throws them out
    Admitting admitting_;                  // of the update under way
    std::int64_t step_ = 0, counted_ = 0, blocks_ = 0;
    int layer_ = 0;  // of the last update
};

}  // namespace longspan
