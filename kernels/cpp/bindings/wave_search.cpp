#include <nanobind/stl/string_view.h>

#include <cmath>

#include "bind.hpp"
#include "longspan/kernels.hpp"
#include "tensors.hpp"

namespace longspan {
namespace {

void wave_search(const Stored& q, const Stored& centroids, const IntsIn& size, const std::optional<PerEntryIn>& bias,
                 const std::optional<FloatsIn>& weight, bool vote_max, float scale, float softcap,
                 const IntsOut& retrieved, const IntsOut& estimated, const IntsOut& live, const FloatsOut& score,
                 int threads, std::string_view isa) {
    WaveSearchArgs args{};
    args.centroids = rows_view(centroids);
    args.groups = static_cast<int>(centroids.shape(0));
    args.clusters = static_cast<std::int64_t>(centroids.shape(1));
    args.head_size = static_cast<int>(centroids.shape(2));
    const std::vector<float> queries = padded_queries(q);
    for (float element : queries)
        require(std::isfinite(element), "q holds NaN or infinity; searching needs finite queries");
    args.q = queries.data();
    args.heads = static_cast<int>(q.shape(0));
    require(q.shape(1) == centroids.shape(2) && args.groups > 0 && args.heads % args.groups == 0,
            "queries do not fit centroids");
    require(size.size() == centroids.shape(0) * centroids.shape(1), "sizes are not [G, C]");
    args.size = size.data();
    args.size_group_stride = args.clusters;
    args.bias = per_entry(bias, args.groups, args.clusters);
    require(!weight || weight->size() == q.shape(0), "weight is not [H]");
    args.weight = weight ? weight->data() : nullptr;
    args.vote_max = vote_max;
    args.scale = scale;
    args.softcap = softcap;
    require(retrieved.ndim() == 2 && estimated.ndim() == 2 && retrieved.shape(0) == centroids.shape(0) &&
                estimated.shape(0) == centroids.shape(0) && live.size() == centroids.shape(0) &&
                retrieved.shape(1) + estimated.shape(1) <= centroids.shape(1) &&
                score.size() == q.shape(0) * centroids.shape(1),
            "a result is not shaped as it should be");
    args.retrieve = static_cast<int>(retrieved.shape(1));
    args.estimate = static_cast<int>(estimated.shape(1));
    args.retrieved = retrieved.data();
    args.estimated = estimated.data();
    args.live = live.data();
    args.score = score.data();
    args.threads = threads;
    const Kernels kernels = kernels_for(parse_isa(isa));
    const nb::gil_scoped_release released;
    kernels.wave_search(args);
}

}  // namespace

void bind_wave_search(nb::module_& module) {
    const auto none = [](const char* name) { return nb::arg(name).noconvert().none(); };
    const auto array = [](const char* name) { return nb::arg(name).noconvert(); };
    module.def("wave_search", &wave_search, array("q"), array("centroids"), array("size"), none("bias"), none("weight"),
               nb::arg("vote_max"), nb::arg("scale"), nb::arg("softcap"), array("retrieved"), array("estimated"),
               array("live"), array("score"), nb::arg("threads"), nb::arg("isa"),
               "Rank clusters by the votes of a group of query heads; softcap 0 is none.");
}

}  // namespace longspan
