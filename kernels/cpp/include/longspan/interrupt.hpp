// How a long kernel learns that its caller wants it to stop (Ctrl-C), without knowing Python.
#pragma once

#include <atomic>
#include <stdexcept>

namespace longspan {

struct Interrupted : std::runtime_error {
    Interrupted() : std::runtime_error("interrupted") {}
};

class Interrupt {
   public:
    // `asked` answers whether to stop; it is only ever called from the thread that calls the kernel.
    explicit Interrupt(bool (*asked)() = nullptr) : asked_(asked) {}

    // Called by the calling thread between pieces of work of some milliseconds.
    void poll() {
        if (asked_ && asked_()) stopped_.store(true, std::memory_order_relaxed);
    }
    // Called by every thread before a piece of work.
    bool stopped() const { return stopped_.load(std::memory_order_relaxed); }
    // Called outside of parallel regions: exceptions may not cross their edge.
    void raise() const {
        if (stopped()) throw Interrupted();
    }

   private:
    bool (*asked_)();
    std::atomic<bool> stopped_{false};
};

}  // namespace longspan
