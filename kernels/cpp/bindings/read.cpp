#include <nanobind/stl/string_view.h>

#include "bind.hpp"
#include "longspan/kernels.hpp"
#include "tensors.hpp"

namespace longspan {
namespace {

using Words = nb::ndarray<nb::pytorch, const std::int64_t, nb::c_contig, nb::device::cpu>;

std::int64_t read(const Words& words, int threads, std::string_view isa) {
    require(threads > 0, "threads must be at least 1");
    const ReadArgs args{reinterpret_cast<const std::uint64_t*>(words.data()), static_cast<std::int64_t>(words.size()),
                        threads};
    const Kernels kernels = kernels_for(parse_isa(isa));
    const nb::gil_scoped_release released;
    return static_cast<std::int64_t>(kernels.read(args));
}

}  // namespace

void bind_read(nb::module_& module) {
    module.def("read", &read, nb::arg("words").noconvert(), nb::arg("threads"), nb::arg("isa"),
               "The exclusive or of all words: a measure of read bandwidth.");
}

}  // namespace longspan
