#include <nanobind/stl/pair.h>
#include <nanobind/stl/string_view.h>

#include <algorithm>

#include "bind.hpp"
#include "longspan/kernels.hpp"
#include "tensors.hpp"

namespace longspan {
namespace {

void hash_build(const Stored& keys, const FloatsIn& mean, const FloatsIn& planes, const IntsOut& token, const IntsOut& bound,
                int threads, std::string_view isa) {
    Interrupt interrupt(&signal_pending);
    HashBuildArgs args{};
    args.keys = rows_view(keys);
    args.groups = static_cast<int>(keys.shape(0));
    args.tokens = static_cast<std::int64_t>(keys.shape(1));
    args.head_size = static_cast<int>(keys.shape(2));
    require(mean.size() == keys.shape(0) * keys.shape(2), "the mean is not [G, D]");
    require(planes.ndim() == 3 && planes.shape(1) == keys.shape(2) && planes.shape(2) >= 1 && planes.shape(2) <= 16,
            "planes are not [L, D, at most 16]");
    args.tables = static_cast<int>(planes.shape(0));
    args.bits = static_cast<int>(planes.shape(2));
    require(token.size() == keys.shape(0) * planes.shape(0) * keys.shape(1) &&
                bound.size() == keys.shape(0) * planes.shape(0) * ((std::size_t{1} << args.bits) + 1),
            "a result is not shaped as it should be");
    args.mean = mean.data();
    args.planes = planes.data();
    args.token = token.data();
    args.bound = bound.data();
    args.threads = threads;
    args.interrupt = &interrupt;
    const Kernels kernels = kernels_for(parse_isa(isa));
    run_interruptible([&] { kernels.hash_build(args); });
}

using Lists = nb::ndarray<nb::pytorch, std::int32_t, nb::ndim<2>, nb::device::cpu>;

// Zeros beyond the end of a list.
Lists padded(const std::vector<std::vector<std::int32_t>>& lists, const IntsOut& counts) {
    std::size_t width = 1;
    for (const auto& list : lists) width = std::max(width, list.size());
    auto* numbers = new std::int32_t[lists.size() * width]();
    const nb::capsule owner(numbers, [](void* at) noexcept { delete[] static_cast<std::int32_t*>(at); });
    for (std::size_t i = 0; i < lists.size(); ++i) {
        std::copy(lists[i].begin(), lists[i].end(), numbers + i * width);
        counts.data()[i] = static_cast<std::int32_t>(lists[i].size());
    }
    return Lists(numbers, {lists.size(), width}, owner);
}

std::pair<Lists, std::int64_t> hash_search(const IntsIn& code, const IntsIn& token, const IntsIn& bound, const IntsOut& counts, int threads,
                      std::string_view isa) {
    HashSearchArgs args{};
    require(code.ndim() == 2 && token.ndim() == 3 && bound.ndim() == 3, "codes are not [H, L], or tables not [G, L, T]");
    args.heads = static_cast<int>(code.shape(0));
    args.groups = static_cast<int>(token.shape(0));
    args.tables = static_cast<int>(code.shape(1));
    args.tokens = static_cast<std::int64_t>(token.shape(2));
    args.codes = static_cast<std::int64_t>(bound.shape(2)) - 1;
    require(token.shape(1) == code.shape(1) && bound.shape(1) == code.shape(1) && bound.shape(0) == token.shape(0) &&
                args.groups > 0 && args.heads % args.groups == 0 && counts.size() == code.shape(0),
            "codes do not fit tables");
    require(std::all_of(code.data(), code.data() + code.size(), [&](std::int32_t c) { return c >= 0 && c < args.codes; }),
            "a code is out of range");
    args.code = code.data();
    args.token = token.data();
    args.bound = bound.data();
    std::vector<std::vector<std::int32_t>> found(args.heads);
    std::vector<std::int64_t> read(args.heads);
    args.found = &found;
    args.read = &read;
    args.threads = threads;
    const Kernels kernels = kernels_for(parse_isa(isa));
    {
        const nb::gil_scoped_release released;
        kernels.hash_search(args);
    }
    std::int64_t entries = 0;
    for (std::int64_t each : read) {
        require(each >= 0, "the tables name a token that is not there");
        entries += each;
    }
    return {padded(found, counts), entries};
}

}  // namespace

void bind_hash_tables(nb::module_& module) {
    const auto array = [](const char* name) { return nb::arg(name).noconvert(); };
    module.def("hash_build", &hash_build, array("keys"), array("mean"), array("planes"), array("token"), array("bound"),
               nb::arg("threads"), nb::arg("isa"), "Sort the tokens of each head by their code, in every table.");
    module.def("hash_search", &hash_search, array("code"), array("token"), array("bound"), array("counts"), nb::arg("threads"),
               nb::arg("isa"), "The tokens that share a head's code in two tables or more, ascending, and the entries read.");
}

}  // namespace longspan
