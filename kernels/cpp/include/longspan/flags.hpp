// Tasks that begin when a flag in memory is raised by whoever has no thread to post them with: a GPU.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "longspan/workers.hpp"

namespace longspan {

// One thread looks at all flags; the tasks themselves are the workers'. Asleep while there is no flag to look at.
class Flags {
   public:
    Flags() : workers_(Workers::shared()), thread_([this] { watch(); }) {}
    Flags(const Flags&) = delete;
    Flags& operator=(const Flags&) = delete;
    ~Flags() {
        {
            const std::lock_guard lock(mutex_);
            ending_ = true;
        }
        wake_.notify_all();
        thread_.join();
    }

    // Makes them where nobody holds any.
    static std::shared_ptr<Flags> shared() {
        static std::mutex mutex;
        static std::weak_ptr<Flags> known;
        const std::lock_guard lock(mutex);
        std::shared_ptr<Flags> flags = known.lock();
        if (!flags) known = flags = std::make_shared<Flags>();
        return flags;
    }

    Workers& workers() { return *workers_; }

    // `task` runs once, when the flag or `given_up` is not 0; both must live until then.
    void await(std::int32_t& flag, const std::atomic<bool>& given_up, std::function<void()> task) {
        {
            const std::lock_guard lock(mutex_);
            awaited_.push_back({&flag, &given_up, std::move(task)});
        }
        wake_.notify_one();
    }

   private:
    struct Awaited {
        std::int32_t* flag;
        const std::atomic<bool>* given_up;
        std::function<void()> task;

        bool due() const { return *given_up || std::atomic_ref(*flag).load(std::memory_order_acquire); }
    };

    void watch() {
        std::unique_lock lock(mutex_);
        for (;;) {
            wake_.wait(lock, [this] { return ending_ || !awaited_.empty(); });
            if (ending_) return;
            std::erase_if(awaited_, [this](Awaited& each) {
                const bool due = each.due();
                if (due) workers_->post(std::move(each.task));
                return due;
            });
            lock.unlock();
            std::this_thread::sleep_for(std::chrono::microseconds(20));
            lock.lock();
        }
    }

    std::shared_ptr<Workers> workers_;
    std::mutex mutex_;
    std::condition_variable wake_;
    std::vector<Awaited> awaited_;
    bool ending_ = false;
    std::thread thread_;  // last: it uses all of the above
};

}  // namespace longspan
