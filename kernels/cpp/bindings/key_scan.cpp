#include <nanobind/stl/string_view.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <cmath>

#include "bind.hpp"
#include "longspan/kernels.hpp"
#include "tensors.hpp"

namespace longspan {
namespace {

using CodesIn = nb::ndarray<nb::pytorch, const std::int8_t, nb::c_contig, nb::device::cpu>;

void key_scan(const std::vector<CodesIn>& codes, const std::vector<FloatsIn>& weights, const FloatsIn& queries,
              const std::vector<Stored>& keys, int candidates, const IntsOut& ids, int threads, std::string_view isa) {
    require(!codes.empty() && weights.size() == codes.size(), "every stretch has codes and weights");
    require(queries.ndim() == 2 && ids.ndim() == 2 && ids.shape(0) == queries.shape(0) && ids.shape(1) > 0 && threads > 0,
            "queries must be [H, D], ids [H, k], with k and threads at least 1");
    const std::size_t heads = queries.shape(0);
    KeyScanArgs args{};
    std::int64_t tokens = 0;
    for (std::size_t s = 0; s < codes.size(); ++s) {
        require(codes[s].ndim() == 3 && codes[s].shape(0) > 0 && heads % codes[s].shape(0) == 0 && codes[s].shape(2) % 32 == 0 &&
                    codes[s].shape(2) > 0 && codes[s].shape(0) == codes[0].shape(0) && codes[s].shape(2) == codes[0].shape(2),
                "codes must be [G, T, W], W a multiple of 32, with G dividing the queries");
        require(weights[s].ndim() == 2 && weights[s].shape(0) == heads && weights[s].shape(1) == codes[0].shape(2),
                "weights must be [H, W]");
        // so that no score passes the range of float32
        require(std::all_of(weights[s].data(), weights[s].data() + weights[s].size(), [](float w) { return std::abs(w) < 1e30F; }),
                "weights must be below 1e30");
        args.stretches.push_back({codes[s].data(), static_cast<std::int64_t>(codes[s].shape(1)), weights[s].data()});
        tokens += args.stretches.back().tokens;
    }
    require(tokens < most_nodes, "more tokens than a scan can number");
    require(keys.empty() || tokens_of(keys) == tokens, "keys must hold as many tokens as the codes");
    args.heads = static_cast<int>(heads);
    args.groups = static_cast<int>(codes[0].shape(0));
    args.width = static_cast<int>(codes[0].shape(2));
    args.queries = queries.data();
    args.head_size = static_cast<int>(queries.shape(1));
    require(keys.empty() || keys[0].shape(0) == codes[0].shape(0), "keys must have as many heads as the codes");
    args.keys = stored_keys(keys, heads, queries.shape(1));
    args.candidates = candidates;
    args.k = static_cast<int>(ids.shape(1));
    require(args.k <= candidates && candidates <= tokens, "candidates must be k to the number of tokens");
    args.ids = ids.data();
    args.threads = threads;
    const Kernels kernels = kernels_for(parse_isa(isa));
    const nb::gil_scoped_release released;
    kernels.key_scan(args);
}

}  // namespace

void bind_key_scan(nb::module_& module) {
    const auto array = [](const char* name) { return nb::arg(name).noconvert(); };
    module.def("key_scan", &key_scan, array("codes"), array("weights"), array("queries"), array("keys"), nb::arg("candidates"),
               array("ids"), nb::arg("threads"), nb::arg("isa"),
               "The keys of largest product by int8 codes, ordered by the keys themselves where they are given, into `ids` [H, k].");
}

}  // namespace longspan
