#include <nanobind/stl/string_view.h>
#include <nanobind/stl/vector.h>

#include "bind.hpp"
#include "longspan/kernels.hpp"
#include "tensors.hpp"

namespace longspan {
namespace {

void merge(const std::vector<FloatsIn>& outs, const std::vector<FloatsIn>& lses, const FloatsOut& out,
           const FloatsOut& lse, int threads, std::string_view isa) {
    const auto rows = static_cast<std::int64_t>(lse.size());
    const auto floats = static_cast<std::int64_t>(out.size());
    MergeArgs args{{}, {}, out.data(), lse.data(), rows, rows == 0 ? 0 : floats / rows, threads};
    for (std::size_t part = 0; part < outs.size(); ++part) {
        if (part >= lses.size() || outs[part].size() != out.size() || lses[part].size() != lse.size())
            throw std::invalid_argument("partials differ in shape; right is one out [.., D] and one lse [..] each");
        args.outs.push_back(outs[part].data());
        args.lses.push_back(lses[part].data());
    }
    const Kernels kernels = kernels_for(parse_isa(isa));
    const nb::gil_scoped_release released;
    kernels.merge(args);
}

}  // namespace

void bind_merge(nb::module_& module) {
    module.def("merge", &merge, nb::arg("outs").noconvert(), nb::arg("lses").noconvert(), nb::arg("out").noconvert(),
               nb::arg("lse").noconvert(), nb::arg("threads"), nb::arg("isa"),
               "Merge P partial attentions (out [.., D], lse [..]) into `out` and `lse`.");
}

}  // namespace longspan
