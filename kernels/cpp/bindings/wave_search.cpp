#include <nanobind/stl/string_view.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "bind.hpp"
#include "longspan/kernels.hpp"
#include "tensors.hpp"

namespace longspan {
namespace {

// The ids that runs of clusters cover, ascending, a list a group.
std::vector<std::vector<std::int32_t>> expanded(const IntsIn& starts, const IntsIn& sizes, const IntsIn& counts,
                                                std::int64_t groups, std::int64_t clusters) {
    require(starts.ndim() == 2 && sizes.ndim() == 2 && static_cast<std::int64_t>(starts.shape(0)) == groups &&
                sizes.size() == starts.size() && static_cast<std::int64_t>(counts.size()) == groups,
            "the runs of clusters are not [G, K]");
    const auto width = static_cast<std::int64_t>(starts.shape(1));
    std::vector<std::vector<std::int32_t>> ids(groups);
    for (std::int64_t g = 0; g < groups; ++g) {
        require(counts.data()[g] >= 0 && counts.data()[g] <= width, "a count of runs is out of range");
        for (std::int64_t k = g * width; k < g * width + counts.data()[g]; ++k) {
            const std::int64_t start = starts.data()[k], size = sizes.data()[k];
            require(start >= 0 && size >= 0 && start + size <= clusters, "a run names a cluster that is not there");
            for (std::int64_t c = start; c < start + size; ++c) ids[g].push_back(static_cast<std::int32_t>(c));
        }
        if (!std::is_sorted(ids[g].begin(), ids[g].end())) std::sort(ids[g].begin(), ids[g].end());
    }
    return ids;
}

void wave_search(const Stored& q, const Stored& centroids, const IntsIn& size, const std::optional<PerEntryIn>& bias,
                 const std::optional<FloatsIn>& weight, bool vote_max, float scale, float softcap,
                 const IntsOut& retrieved, const IntsOut& estimated, const IntsOut& live,
                 const std::optional<FloatsOut>& score, const std::optional<IntsIn>& starts,
                 const std::optional<IntsIn>& sizes, const std::optional<IntsIn>& counts, int threads, std::string_view isa) {
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
                (!score || score->size() == q.shape(0) * centroids.shape(1)),
            "a result is not shaped as it should be");
    args.retrieve = static_cast<int>(retrieved.shape(1));
    args.estimate = static_cast<int>(estimated.shape(1));
    args.retrieved = retrieved.data();
    args.estimated = estimated.data();
    args.live = live.data();
    args.score = score ? score->data() : nullptr;
    std::vector<std::vector<std::int32_t>> within;
    require(starts.has_value() == sizes.has_value() && starts.has_value() == counts.has_value(),
            "runs of clusters have starts, sizes and counts");
    if (starts) within = expanded(*starts, *sizes, *counts, args.groups, args.clusters);
    args.within = starts ? &within : nullptr;
    if (starts && score) std::fill_n(args.score, score->size(), -std::numeric_limits<float>::infinity());
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
               array("live"), none("score"), none("starts"), none("sizes"), none("counts"), nb::arg("threads"), nb::arg("isa"),
               "Rank clusters by the votes of a group of query heads, all or those that runs name; softcap 0 is none.");
}

}  // namespace longspan
