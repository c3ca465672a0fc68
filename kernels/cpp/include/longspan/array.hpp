// Arrays whose rows begin on a cache line.
#pragma once

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include <cstddef>
#include <new>
#include <vector>

namespace longspan {

// Rows of 64 bytes cost one line; large arrays ask for large pages, without which most hops of a search, say, would also
// miss the translation cache.
template <class T>
struct LineAllocator {
    using value_type = T;
    LineAllocator() = default;
    template <class U>
    LineAllocator(const LineAllocator<U>&) {}
    T* allocate(std::size_t count) {
        const std::size_t bytes = count * sizeof(T);
        void* at = ::operator new(bytes, alignment(bytes));
#if defined(__linux__)
        if (bytes >= large_page) madvise(at, bytes, MADV_HUGEPAGE);
#endif
        return static_cast<T*>(at);
    }
    void deallocate(T* at, std::size_t count) { ::operator delete(at, alignment(count * sizeof(T))); }
    friend bool operator==(const LineAllocator&, const LineAllocator&) { return true; }

  private:
    static constexpr std::size_t line = 64, large_page = std::size_t{1} << 21;
    static std::align_val_t alignment(std::size_t bytes) {
        return static_cast<std::align_val_t>(bytes >= large_page ? large_page : line);
    }
};
template <class T>
using Array = std::vector<T, LineAllocator<T>>;

}  // namespace longspan
