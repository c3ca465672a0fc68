#include <nanobind/stl/string_view.h>

#include <atomic>

#include "bind.hpp"
#include "longspan/kernels.hpp"
#include "tensors.hpp"

namespace longspan {
namespace {

void token_union(const IntsIn& token, const IntsIn& count, const IntsIn& place, const IntsIn& size, const IntsOut& union_place,
                 const IntsOut& union_count, const IntsOut& left, int threads, std::string_view isa) {
    require(token.ndim() == 2 && place.ndim() == 2 && size.ndim() == 2 && place.shape(0) > 0 && size.shape(1) > 0 &&
                place.shape(0) == size.shape(0) && token.shape(0) % place.shape(0) == 0 && count.size() == token.shape(0),
            "tokens must be [H, K], counts [H], places [G, T] and sizes [G, C], with G dividing H");
    require(union_place.size() == token.size() && union_count.size() == place.shape(0) && left.size() == size.size() && threads > 0,
            "what is united must be [G, H / G * K], [G] and [G, C]");
    std::atomic<bool> wrong{false};
    const TokenUnionArgs args{token.data(), count.data(), place.data(), size.data(),
                        static_cast<int>(token.shape(0)), static_cast<int>(place.shape(0)),
                        static_cast<std::int64_t>(token.shape(1)), static_cast<std::int64_t>(place.shape(1)),
                        static_cast<std::int64_t>(size.shape(1)), union_place.data(), union_count.data(), left.data(), threads, &wrong};
    for (std::size_t head = 0; head < count.size(); ++head)
        require(count.data()[head] >= 0 && count.data()[head] <= args.found, "a count is more than there are tokens");
    const Kernels kernels = kernels_for(parse_isa(isa));
    {
        const nb::gil_scoped_release released;
        kernels.token_union(args);
    }
    require(!wrong, "a token or place is not there, or clusters do not hold every token once");
}

}  // namespace

void bind_token_union(nb::module_& module) {
    const auto array = [](const char* name) { return nb::arg(name).noconvert(); };
    module.def("token_union", &token_union, array("token"), array("count"), array("place"), array("size"), array("union_place"),
               array("union_count"), array("left"), nb::arg("threads"), nb::arg("isa"),
               "The places of what the heads of a group found, ascending, and what is left of the clusters.");
}

}  // namespace longspan
