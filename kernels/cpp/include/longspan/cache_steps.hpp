// The caches of several rows, brought up to date beside decode steps that never wait for them: a step leaves the list of what
// it read and raises a flag; a worker that waits for the flag leaves the list of what the next step must copy.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <future>
#include <memory>
#include <stdexcept>
#include <vector>

#include "longspan/block_cache.hpp"
#include "longspan/flags.hpp"

namespace longspan {

// Memory that the steps and the worker share, of B caches with G groups each.
struct StepLists {
    RunsView read;               // [B G, K]: what the step read, best first; runs of size 0 are none of the caches' business
    std::int32_t* flag;          // raised behind them
    std::int32_t* admitted;      // [B, most, 4]: row of the runs, slot, size, first row of the cache
    std::int32_t* admitted_count;  // [B]
    std::int64_t most;           // pages that a row's cache may let in a step
};

struct StepCount {
    std::int64_t hit_entries, miss_entries, admitted_entries;
};

class CacheSteps {
   public:
    // The caches' rows of the pool follow one another.
    CacheSteps(const std::vector<CacheOptions>& caches, const StepLists& lists) : lists_(lists) {
        std::int64_t first = 0;
        for (const CacheOptions& options : caches) {
            caches_.emplace_back(options);
            first_row_.push_back(first);
            first += options.pages * options.page;
        }
    }
    ~CacheSteps() { give_up(); }

    // Before the step.
    void begin() {
        give_up();
        given_up_ = false;
        std::atomic_ref(*lists_.flag).store(0, std::memory_order_release);
        if (!flags_) flags_ = Flags::shared();
        auto task = std::make_shared<std::packaged_task<std::vector<StepCount>()>>([this] { return work(); });
        pending_ = task->get_future();
        flags_->await(*lists_.flag, given_up_, [task] { (*task)(); });
    }

    // Before the next one; nothing where none was begun. A step that never raised its flag is given up.
    std::vector<StepCount> wait(double seconds) {
        if (!pending_.valid()) return {};
        if (pending_.wait_for(std::chrono::duration<double>(seconds)) != std::future_status::ready) {
            give_up();
            throw std::runtime_error("a decode step never said what it read");
        }
        return pending_.get();
    }

   private:
    void give_up() {
        given_up_ = true;
        if (pending_.valid()) pending_.wait();
        pending_ = {};
    }

    std::vector<StepCount> work() {
        std::vector<StepCount> counts;
        if (given_up_) return counts;
        for (std::size_t number = 0; number < caches_.size(); ++number) counts.push_back(update(number));
        return counts;
    }

    StepCount update(std::size_t number) {
        BlockCache& cache = caches_[number];
        const std::int64_t groups = cache.options().groups, first = static_cast<std::int64_t>(number) * groups;
        const std::int64_t at = first * lists_.read.width;
        const RunsView mine{lists_.read.starts + at, lists_.read.sizes + at, lists_.read.counts + first, groups, lists_.read.width};
        for (std::int64_t row = 0; row < groups; ++row)
            if (mine.counts[row] < 0 || mine.counts[row] > mine.width) throw std::runtime_error("a decode step's list is broken");
        const LookUp found = cache.look_up(mine);
        const Admission let_in = cache.update(found, {true, lists_.most});
        std::int32_t* out = lists_.admitted + static_cast<std::int64_t>(number) * lists_.most * 4;
        for (std::int64_t row = 0; row < groups; ++row)
            for (std::size_t page = 0; page < let_in.pages.sources[row].size(); ++page) {
                *out++ = static_cast<std::int32_t>(first + row);
                *out++ = let_in.pages.targets[row][page];
                *out++ = let_in.pages.sizes[row][page];
                *out++ = static_cast<std::int32_t>(first_row_[number] + let_in.pages.sources[row][page]);
            }
        std::atomic_ref(lists_.admitted_count[number])
            .store(static_cast<std::int32_t>(let_in.admitted_pages), std::memory_order_release);
        return {found.hit_entries, found.miss_entries, let_in.admitted_entries};
    }

    std::vector<BlockCache> caches_;
    std::vector<std::int64_t> first_row_;
    StepLists lists_;
    std::shared_ptr<Flags> flags_;
    std::future<std::vector<StepCount>> pending_;
    std::atomic<bool> given_up_ = false;
};

}  // namespace longspan
