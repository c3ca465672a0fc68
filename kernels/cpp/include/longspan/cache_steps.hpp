// The caches of several rows, brought up to date beside a layer's decode steps, which never wait for them: a step leaves the
// list of what it read and raises a flag; then workers, a task a cache, leave the list of what the next step must copy.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <exception>
#include <future>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <utility>
#include <vector>

#include "longspan/block_cache.hpp"
#include "longspan/flags.hpp"
#include "longspan/interrupt.hpp"

namespace longspan {

// The caches of several rows, whose rows of the pool follow one another; the layers' steps share them.
class StepCaches {
   public:
    struct Turn {
        const std::lock_guard<std::mutex> lock;
        BlockCache& cache;
        std::int64_t first_row;
    };

    explicit StepCaches(const std::vector<CacheOptions>& caches) {
        std::int64_t first = 0;
        for (const CacheOptions& options : caches) {
            caches_.push_back(std::make_unique<Owned>(options, first));
            first += options.pages * options.page;
        }
    }

    StepCaches(const StepCaches&) = delete;
    StepCaches& operator=(const StepCaches&) = delete;

    std::size_t size() const { return caches_.size(); }
    const CacheOptions& options() const { return caches_.front()->cache.options(); }

    // Nobody else's until it is let go.
    Turn hold(std::size_t number) {
        Owned& owned = *caches_[number];
        return {std::lock_guard(owned.mutex), owned.cache, owned.first_row};
    }

   private:
    struct Owned {
        Owned(const CacheOptions& options, std::int64_t first) : cache(options), first_row(first) {}
        BlockCache cache;
        std::int64_t first_row;
        std::mutex mutex;
    };

    std::vector<std::unique_ptr<Owned>> caches_;
};

// Memory that a layer's steps and the worker share, of B caches with G groups each.
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
    CacheSteps(std::shared_ptr<StepCaches> caches, int layer, const StepLists& lists)
        : caches_(std::move(caches)), layer_(layer), lists_(lists) {}
    ~CacheSteps() { give_up(); }

    // Before the step.
    void begin() {
        give_up();
        given_up_ = false;
        std::atomic_ref(*lists_.flag).store(0, std::memory_order_release);
        if (!flags_) flags_ = Flags::shared();
        turn_ = std::make_shared<Turn>(caches_->size());
        done_ = turn_->done.get_future();
        // not a share in the workers: the last one must not be let go by a worker
        flags_->await(*lists_.flag, given_up_, [this, turn = turn_, workers = &flags_->workers()] {
            for (std::size_t number = 0; number < turn->counts.size(); ++number)
                workers->post([this, turn, number] { work(*turn, number); });
        });
    }

    // A step of the host's has left its list. A GPU's does so itself, as strictly.
    void raise_flag() { std::atomic_ref(*lists_.flag).store(1, std::memory_order_release); }

    // Before the next one; nothing where none was begun. A step that never raised its flag is given up.
    std::vector<StepCount> wait(double seconds, Interrupt& interrupt) {
        if (!done_.valid()) return {};
        const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
        while (done_.wait_for(std::chrono::milliseconds(100)) != std::future_status::ready) {
            const bool late = std::chrono::steady_clock::now() > end;
            if (!interrupt.poll() && !late) continue;
            give_up();
            interrupt.raise();
            throw std::runtime_error("a decode step never said what it read");
        }
        done_.get();
        return turn_->counts;
    }

   private:
    // What one step leaves to be done, a task a cache. Outlives its steps until the last task is over.
    struct Turn {
        explicit Turn(std::size_t caches) : counts(caches), left(caches) {}
        std::vector<StepCount> counts;
        std::promise<void> done;
        std::atomic<std::size_t> left;
        std::mutex mutex;
        std::exception_ptr error;
    };

    void give_up() {
        given_up_ = true;
        if (done_.valid()) done_.wait();
        done_ = {};
    }

    // Uses nothing but the turn after it has counted itself off.
    void work(Turn& turn, std::size_t number) {
        try {
            if (!given_up_) turn.counts[number] = update(number);
        } catch (...) {
            const std::lock_guard lock(turn.mutex);
            turn.error = std::current_exception();
        }
        if (turn.left.fetch_sub(1) > 1) return;
        if (turn.error)
            turn.done.set_exception(turn.error);
        else
            turn.done.set_value();
    }

    StepCount update(std::size_t number) {
        const auto [lock, cache, first_row] = caches_->hold(number);
        const std::int64_t groups = cache.options().groups, first = static_cast<std::int64_t>(number) * groups;
        const std::int64_t at = first * lists_.read.width;
        const RunsView mine{lists_.read.starts + at, lists_.read.sizes + at, lists_.read.counts + first, groups, lists_.read.width};
        check_runs(mine);
        const LookUp found = cache.look_up(mine, layer_);
        const Admission let_in = cache.update(found, {true, lists_.most});
        std::int32_t* out = lists_.admitted + static_cast<std::int64_t>(number) * lists_.most * 4;
        for (std::int64_t row = 0; row < groups; ++row)
            for (std::size_t page = 0; page < let_in.pages.sources[row].size(); ++page) {
                *out++ = static_cast<std::int32_t>(first + row);
                *out++ = let_in.pages.targets[row][page];
                *out++ = let_in.pages.sizes[row][page];
                *out++ = static_cast<std::int32_t>(first_row + let_in.pages.sources[row][page]);
            }
        std::atomic_ref(lists_.admitted_count[number])
            .store(static_cast<std::int32_t>(let_in.admitted_pages), std::memory_order_release);
        return {found.hit_entries, found.miss_entries, let_in.admitted_entries};
    }

    std::shared_ptr<StepCaches> caches_;
    int layer_;
    StepLists lists_;
    std::shared_ptr<Flags> flags_;
    std::shared_ptr<Turn> turn_;
    std::future<void> done_;
    std::atomic<bool> given_up_ = false;
};

}  // namespace longspan
