#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string_view.h>
#include <nanobind/stl/vector.h>

#include <cmath>
#include <utility>

#include "bind.hpp"
#include "longspan/kernels.hpp"
#include "tensors.hpp"

namespace longspan {
namespace {

using Range = std::pair<std::int64_t, std::int64_t>;

std::vector<StoredPart> stored_parts(const std::vector<Stored>& keys, const std::vector<Stored>& values,
                                     const std::vector<std::int64_t>& firsts, const WaveSearchArgs& search) {
    require(keys.size() == values.size() && keys.size() == firsts.size(), "parts have keys, values and a first slot each");
    std::vector<StoredPart> parts;
    for (std::size_t p = 0; p < keys.size(); ++p) {
        parts.push_back({rows_view(keys[p]), rows_view(values[p]), firsts[p], static_cast<std::int64_t>(keys[p].shape(1))});
        require(static_cast<int>(keys[p].shape(0)) == search.groups && static_cast<int>(keys[p].shape(2)) == search.head_size &&
                    values[p].shape(0) == keys[p].shape(0) && values[p].shape(1) == keys[p].shape(1) &&
                    values[p].shape(2) == keys[p].shape(2),
                "keys and values of a part do not fit the clusters");
    }
    return parts;
}

void wave_decode(const Stored& q, const Stored& centroids, const Stored& means, const IntsIn& start, const IntsIn& size,
                 const std::vector<Stored>& keys, const std::vector<Stored>& values, const std::vector<std::int64_t>& firsts,
                 const std::vector<Range>& ranges, Range indexed, bool vote_max, float scale, float softcap,
                 const std::optional<FloatsIn>& spread, bool votes_by_mass, bool gaussian, double tolerance,
                 const std::optional<FloatsOut>& bias, const IntsOut& run_start, const IntsOut& run_size, const IntsOut& run_count, const IntsOut& estimated,
                 const IntsOut& estimate_count, const FloatsOut& out, const FloatsOut& lse, int threads,
                 std::string_view isa) {
    WaveDecodeArgs args{};
    WaveSearchArgs& search = args.search;
    search.centroids = rows_view(centroids), args.means = rows_view(means);
    const std::size_t groups = centroids.shape(0), clusters = centroids.shape(1);
    search.groups = static_cast<int>(groups), search.clusters = static_cast<std::int64_t>(clusters);
    search.head_size = static_cast<int>(centroids.shape(2));
    const std::vector<float> queries = padded_queries(q);
    for (float element : queries)
        require(std::isfinite(element), "q holds NaN or infinity; searching needs finite queries");
    search.q = queries.data(), search.heads = static_cast<int>(q.shape(0));
    require(q.shape(1) == centroids.shape(2) && groups > 0 && q.shape(0) % groups == 0, "queries do not fit centroids");
    require(means.shape(0) == groups && means.shape(1) == clusters && means.shape(2) == centroids.shape(2),
            "mean values do not fit centroids");
    require(size.size() == groups * clusters && start.size() == groups * clusters, "starts and sizes are not [G, C]");
    search.size = size.data(), search.size_group_stride = search.clusters, args.start = start.data();
    search.vote_max = vote_max, search.scale = scale, search.softcap = softcap, search.threads = threads;
    require(run_start.ndim() == 2 && estimated.ndim() == 2 && run_start.shape(0) == groups && estimated.shape(0) == groups &&
                run_size.size() == run_start.size() && run_count.size() == groups && estimate_count.size() == groups &&
                out.size() == q.size() && lse.size() == q.shape(0),
            "a result is not shaped as it should be");
    const std::size_t room = run_start.shape(1), estimate = estimated.shape(1), more = tolerance > 0.0 ? estimate : 0;
    require(more <= room && room - more + estimate <= clusters, "there is no room for the clusters that are read");
    const std::size_t retrieve = room - more;
    search.retrieve = static_cast<int>(retrieve), search.estimate = static_cast<int>(estimate);
    std::vector<std::int32_t> retrieved(groups * retrieve), live(groups);
    search.retrieved = retrieved.data(), search.estimated = estimated.data(), search.live = live.data();
    args.room = static_cast<std::int64_t>(room);
    require(spread ? spread->size() == groups * clusters && bias && bias->size() == spread->size() : !votes_by_mass && !gaussian && !(tolerance > 0.0),
            "the spread of clusters is not [G, C]");
    if (spread) args.spread = spread->data(), args.bias = bias->data();
    args.votes_by_mass = votes_by_mass, args.gaussian = gaussian, args.tolerance = static_cast<float>(tolerance);
    args.parts = stored_parts(keys, values, firsts, search);
    args.indexed = indexed, args.ranges = ranges;
    args.run_start = run_start.data(), args.run_size = run_size.data(), args.run_count = run_count.data();
    args.estimate_count = estimate_count.data();
    args.out = out.data(), args.lse = lse.data();
    const Kernels kernels = kernels_for(parse_isa(isa));
    const nb::gil_scoped_release released;
    kernels.wave_decode(args);
}

}  // namespace

void bind_wave_decode(nb::module_& module) {
    const auto array = [](const char* name) { return nb::arg(name).noconvert(); };
    module.def("wave_decode", &wave_decode, array("q"), array("centroids"), array("means"), array("start"), array("size"),
               array("keys"), array("values"), nb::arg("firsts"), nb::arg("ranges"), nb::arg("indexed"), nb::arg("vote_max"),
               nb::arg("scale"), nb::arg("softcap"), array("spread").none(), nb::arg("votes_by_mass"), nb::arg("gaussian"), nb::arg("tolerance"),
               array("bias").none(), array("run_start"), array("run_size"), array("run_count"),
               array("estimated"), array("estimate_count"), array("out"), array("lse"), nb::arg("threads"), nb::arg("isa"),
               "A decode step over clusters and stored keys and values; softcap 0 is none.");
}

}  // namespace longspan
