// Copies of pages between a store, a cache and a buffer; rows of bytes, whatever they hold.
#pragma once

#include <cstdint>
#include <cstring>
#include <stdexcept>

namespace longspan {

// [groups, entries, width] of bytes; the bytes of a row are adjacent. A cache is one group.
template <class Byte>
struct ByteRows {
    Byte* data = nullptr;
    std::int64_t groups = 0;
    std::int64_t entries = 0;
    std::int64_t group_stride = 0;
    std::int64_t row_stride = 0;
    std::size_t width = 0;

    Byte* row(std::int64_t group, std::int64_t entry) const { return data + group * group_stride + entry * row_stride; }
};

// Page p of row n: sizes[n, p] entries of the buffer from targets[n, p] on. A source >= 0 is a row of the cache, one below
// 0 the slot ~source of the store.
struct PagesView {
    const std::int32_t* sources;
    const std::int32_t* targets;
    const std::int32_t* sizes;
    const std::int32_t* counts;
    std::int64_t rows;
    std::int64_t width;
};

// Calls body(row, source, target, size) for the pages of all rows, rows in parallel. Workers must not throw.
template <class Body>
inline void for_pages(const PagesView& pages, int threads, Body&& body) {
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads) if (threads > 1 && pages.rows > 1)
    for (std::int64_t n = 0; n < pages.rows; ++n)
        for (std::int64_t at = n * pages.width; at < n * pages.width + pages.counts[n]; ++at)
            body(n, std::int64_t{pages.sources[at]}, std::int64_t{pages.targets[at]}, std::int64_t{pages.sizes[at]});
}

// Refuses pages that reach beyond the buffer or the cache: a wrong list must not become a wrong address.
inline void check_pages(const PagesView& pages, std::int64_t buffer_entries, std::int64_t cache_entries) {
    for (std::int64_t n = 0; n < pages.rows; ++n) {
        if (pages.counts[n] < 0 || pages.counts[n] > pages.width) throw std::invalid_argument("a row counts more pages than it has");
        for (std::int64_t at = n * pages.width; at < n * pages.width + pages.counts[n]; ++at) {
            const std::int64_t source = pages.sources[at], target = pages.targets[at], size = pages.sizes[at];
            if (size < 0 || target < 0 || target + size > buffer_entries) throw std::invalid_argument("a page lies beyond the buffer");
            if (source >= 0 && cache_entries >= 0 && source + size > cache_entries)
                throw std::invalid_argument("a page lies beyond the cache");
        }
    }
}

template <class From, class To>
inline void copy_rows(const ByteRows<From>& from, std::int64_t group, std::int64_t source, const ByteRows<To>& to, std::int64_t row,
                      std::int64_t target, std::int64_t size) {
    if (from.row_stride == static_cast<std::int64_t>(from.width) && to.row_stride == static_cast<std::int64_t>(to.width)) {
        if (size > 0) std::memcpy(to.row(row, target), from.row(group, source), static_cast<std::size_t>(size) * from.width);
        return;
    }
    for (std::int64_t t = 0; t < size; ++t) std::memcpy(to.row(row, target + t), from.row(group, source + t), from.width);
}

// Slot t of the store is number first + t; stored pages beyond it are skipped, cached ones where there is no cache.
inline void page_gather(const ByteRows<const std::uint8_t>& store, const ByteRows<const std::uint8_t>* cache, const PagesView& pages,
                        const ByteRows<std::uint8_t>& out, std::int64_t first, int threads) {
    check_pages(pages, out.entries, cache ? cache->entries : -1);
    const std::int64_t rows_a_group = out.groups / store.groups;
    for_pages(pages, threads, [&](std::int64_t n, std::int64_t source, std::int64_t target, std::int64_t size) {
        if (source >= 0) {
            if (cache) copy_rows(*cache, 0, source, out, n, target, size);
            return;
        }
        // a page may cross the edge of a part: each part copies what it holds
        const std::int64_t slot = ~source - first, low = slot < 0 ? -slot : 0;
        const std::int64_t high = slot + size > store.entries ? store.entries - slot : size;
        if (low < high) copy_rows(store, n / rows_a_group, slot + low, out, n, target + low, high - low);
    });
}

inline void page_admit(const ByteRows<const std::uint8_t>& buffer, const PagesView& pages, const ByteRows<std::uint8_t>& cache,
                       int threads) {
    check_pages(pages, buffer.entries, cache.entries);
    for_pages(pages, threads, [&](std::int64_t n, std::int64_t source, std::int64_t target, std::int64_t size) {
        if (source >= 0) copy_rows(buffer, n, target, cache, 0, source, size);
    });
}

}  // namespace longspan
