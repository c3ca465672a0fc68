#include <nanobind/stl/string_view.h>

#include "bind.hpp"
#include "longspan/kernels.hpp"
#include "tensors.hpp"

namespace longspan {
namespace {

using LongsOut = nb::ndarray<nb::pytorch, std::int64_t, nb::c_contig, nb::device::cpu>;

void segmented_kmeans(const Stored& keys, const Stored& values, std::int64_t segments, int iterations, float even_share, bool global,
                      const LongsOut& order, const IntsOut& start, const IntsOut& size, const FloatsOut& centroids,
                      const FloatsOut& mean_values, const FloatsOut& spread, int threads, std::string_view isa) {
    Interrupt interrupt(&signal_pending);
    KmeansArgs args{};
    args.keys = rows_view(keys);
    args.values = rows_view(values);
    args.groups = static_cast<int>(keys.shape(0));
    args.tokens = static_cast<std::int64_t>(keys.shape(1));
    args.head_size = static_cast<int>(keys.shape(2));
    for (std::size_t axis = 0; axis < 3; ++axis) require(values.shape(axis) == keys.shape(axis), "values do not fit keys");
    require(order.size() == keys.shape(0) * keys.shape(1) && size.ndim() == 2 && size.shape(0) == keys.shape(0) &&
                start.size() == size.size() && spread.size() == size.size() &&
                centroids.size() == size.size() * keys.shape(2) && mean_values.size() == centroids.size(),
            "a result is not shaped as it should be");
    args.clusters = static_cast<std::int64_t>(size.shape(1));
    require(even_share >= 0.0F && even_share <= 1.0F, "even_share is not in [0, 1]");
    require(segments >= 1 && segments <= args.clusters && segments <= args.tokens && iterations >= 1,
            "segments or iterations are out of range");
    args.segments = segments;
    args.iterations = iterations;
    args.even_share = even_share;
    args.global = global;
    args.order = order.data();
    args.start = start.data();
    args.size = size.data();
    args.centroids = centroids.data();
    args.mean_values = mean_values.data();
    args.spread = spread.data();
    args.threads = threads;
    args.interrupt = &interrupt;
    const Kernels kernels = kernels_for(parse_isa(isa));
    run_interruptible([&] { kernels.segmented_kmeans(args); });
}

}  // namespace

void bind_segmented_kmeans(nb::module_& module) {
    const auto array = [](const char* name) { return nb::arg(name).noconvert(); };
    module.def("segmented_kmeans", &segmented_kmeans, array("keys"), array("values"), nb::arg("segments"),
               nb::arg("iterations"), nb::arg("even_share"), nb::arg("all"), array("order"), array("start"), array("size"),
               array("centroids"), array("mean_values"), array("spread"), nb::arg("threads"), nb::arg("isa"),
               "Cluster the keys of each head; `even_share`: of the seeds; the others lie apart; `all`: the last assignment sees the "
               "centroids of all segments.");
}

}  // namespace longspan
