#include "longspan/page_gather.hpp"

#include "bind.hpp"
#include "tensors.hpp"

namespace longspan {
namespace {

using BytesIn = nb::ndarray<nb::pytorch, const std::uint8_t, nb::device::cpu>;
using BytesOut = nb::ndarray<nb::pytorch, std::uint8_t, nb::device::cpu>;

// [G, T, W], or [T, W] as one group.
template <class Byte, class Array>
ByteRows<Byte> byte_rows(const Array& array) {
    const bool grouped = array.ndim() == 3;
    require(grouped || array.ndim() == 2, "rows are not [G, T, W] or [T, W]");
    const std::size_t row = grouped ? 1 : 0;
    require(array.stride(row + 1) == 1 || array.size() == 0, "the bytes of a row are not adjacent");
    return {array.data(), grouped ? static_cast<std::int64_t>(array.shape(0)) : 1, static_cast<std::int64_t>(array.shape(row)),
            grouped ? array.stride(0) : 0, array.stride(row), array.shape(row + 1)};
}

PagesView pages_view(const IntsIn& sources, const IntsIn& targets, const IntsIn& sizes, const IntsIn& counts, std::size_t rows) {
    require(sources.ndim() == 2 && sources.shape(0) == rows && targets.size() == sources.size() && sizes.size() == sources.size() &&
                counts.size() == rows,
            "pages are not [N, P] with a count a row");
    return {sources.data(), targets.data(), sizes.data(), counts.data(), static_cast<std::int64_t>(rows),
            static_cast<std::int64_t>(sources.shape(1))};
}

void gather(const BytesIn& store, const std::optional<BytesIn>& cache, const IntsIn& sources, const IntsIn& targets,
            const IntsIn& sizes, const IntsIn& counts, const BytesOut& out, std::int64_t first, int threads) {
    const auto from = byte_rows<const std::uint8_t>(store);
    const auto to = byte_rows<std::uint8_t>(out);
    require(from.groups > 0 && to.groups % from.groups == 0 && from.width == to.width, "the store does not fit the buffer");
    const PagesView pages = pages_view(sources, targets, sizes, counts, out.shape(0));
    ByteRows<const std::uint8_t> pool;
    if (cache) pool = byte_rows<const std::uint8_t>(*cache);
    require(!cache || pool.width == to.width, "the cache does not fit the buffer");
    const nb::gil_scoped_release released;
    page_gather(from, cache ? &pool : nullptr, pages, to, first, threads);
}

void admit(const BytesIn& buffer, const IntsIn& sources, const IntsIn& targets, const IntsIn& sizes, const IntsIn& counts,
           const BytesOut& cache, int threads) {
    const auto from = byte_rows<const std::uint8_t>(buffer);
    const auto to = byte_rows<std::uint8_t>(cache);
    require(from.width == to.width, "the cache does not fit the buffer");
    const PagesView pages = pages_view(sources, targets, sizes, counts, buffer.shape(0));
    const nb::gil_scoped_release released;
    page_admit(from, pages, to, threads);
}

}  // namespace

void bind_page_gather(nb::module_& module) {
    const auto array = [](const char* name) { return nb::arg(name).noconvert(); };
    module.def("page_gather", &gather, array("store"), array("cache").none(), array("sources"), array("targets"), array("sizes"),
               array("counts"), array("out"), nb::arg("first"), nb::arg("threads"),
               "Copy pages of a store and of a cache into a buffer; all are rows of bytes.");
    module.def("page_admit", &admit, array("buffer"), array("sources"), array("targets"), array("sizes"), array("counts"),
               array("cache"), nb::arg("threads"), "Copy pages of a buffer into a cache; both are rows of bytes.");
}

}  // namespace longspan
