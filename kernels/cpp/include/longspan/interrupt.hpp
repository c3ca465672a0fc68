// How a long kernel learns that its caller wants it to stop (Ctrl-C), without knowing Python.
#pragma once

#include <atomic>
#include <stdexcept>
#include <thread>

namespace longspan {

struct Stopped : std::runtime_error {
    Stopped() : std::runtime_error("interrupted") {}
};

class Interrupt {
   public:
    // `asked` answers whether to stop; it is only ever called by the thread that makes this object.
    explicit Interrupt(bool (*asked)()) : asked_(asked), owner_(std::this_thread::get_id()) {}

    // Called by any thread before a piece of work of some milliseconds; true: leave it undone.
    bool poll() {
        if (std::this_thread::get_id() == owner_ && asked_()) stopped_.store(true, std::memory_order_relaxed);
        return stopped();
    }
    bool stopped() const { return stopped_.load(std::memory_order_relaxed); }
    // Called outside of parallel regions: exceptions may not cross their edge.
    void raise() const {
        if (stopped()) throw Stopped();
    }

   private:
    bool (*asked_)();
    std::thread::id owner_;
    std::atomic<bool> stopped_{false};
};

}  // namespace longspan
