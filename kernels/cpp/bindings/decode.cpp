#include <nanobind/stl/string_view.h>

#include "bind.hpp"
#include "longspan/kernels.hpp"
#include "tensors.hpp"

namespace longspan {
namespace {

RunsView runs_view(const std::optional<IntsIn>& starts, const std::optional<IntsIn>& sizes,
                   const std::optional<IntsIn>& counts) {
    if (!starts) return {};
    require(counts.has_value() && starts->ndim() == 2 && counts->size() == starts->shape(0), "counts are not [N]");
    require(!sizes || sizes->size() == starts->size(), "sizes are not shaped as starts");
    return {starts->data(), sizes ? sizes->data() : nullptr, counts->data(),
            static_cast<std::int64_t>(starts->shape(0)), static_cast<std::int64_t>(starts->shape(1))};
}

// `queries` must live as long as what is returned.
DecodeArgs decode_args(const Stored& q, const std::vector<float>& queries, const Stored& keys, const Stored& values,
                       const RunsView& runs, std::int64_t first, float scale, float softcap, const FloatsOut& out,
                       const FloatsOut& lse, int threads) {
    DecodeArgs args{};
    args.keys = rows_view(keys);
    args.values = rows_view(values);
    args.q = queries.data();
    args.heads = static_cast<int>(q.shape(0));
    args.groups = static_cast<int>(keys.shape(0));
    args.entries = static_cast<std::int64_t>(keys.shape(1));
    args.head_size = static_cast<int>(keys.shape(2));
    require(q.shape(1) == keys.shape(2) && args.groups > 0 && args.heads % args.groups == 0, "queries do not fit keys");
    require(values.shape(0) == keys.shape(0) && values.shape(1) == keys.shape(1) && values.shape(2) == keys.shape(2),
            "values do not fit keys");
    require(!runs.rows || runs.rows == args.groups || runs.rows == args.heads, "runs are not [N, K]");
    require(out.size() == q.size() && lse.size() == q.shape(0), "out or lse is not shaped as the queries");
    args.runs = runs;
    args.first = first;
    args.scale = scale;
    args.softcap = softcap;
    args.out = out.data();
    args.lse = lse.data();
    args.threads = threads;
    return args;
}

void decode(const Stored& q, const Stored& keys, const Stored& values, const std::optional<PerEntryIn>& key_scale,
            const std::optional<PerEntryIn>& value_scale, const std::optional<PerEntryIn>& bias,
            const std::optional<IntsIn>& starts, const std::optional<IntsIn>& sizes, const std::optional<IntsIn>& counts,
            std::int64_t first, float scale, float softcap, const FloatsOut& out, const FloatsOut& lse, int threads,
            std::string_view isa) {
    const std::vector<float> queries = padded_queries(q);
    DecodeArgs args = decode_args(q, queries, keys, values, runs_view(starts, sizes, counts), first, scale, softcap, out, lse, threads);
    args.key_scale = per_entry(key_scale, args.groups, args.entries);
    args.value_scale = per_entry(value_scale, args.groups, args.entries);
    args.bias = per_entry(bias, args.groups, args.entries);
    const Kernels kernels = kernels_for(parse_isa(isa));
    const nb::gil_scoped_release released;
    kernels.decode(args);
}

void sampled_decode(const Stored& q, const Stored& keys, const Stored& values, const IntsIn& starts, const IntsIn& counts,
                    const PerEntryIn& norm, const FloatsIn& q_norm, const FloatsIn& q_mean, const FloatsIn& faint, int bits, int tables,
                    float least, std::int64_t first, float scale, float softcap, const FloatsOut& out, const FloatsOut& lse, int threads,
                    std::string_view isa) {
    const std::vector<float> queries = padded_queries(q);
    DecodeArgs args = decode_args(q, queries, keys, values, runs_view(starts, {}, counts), first, scale, softcap, out, lse, threads);
    require(args.runs.rows == args.heads, "runs are not [H, K]");
    for (const FloatsIn& each : {q_norm, q_mean, faint}) require(each.size() == q.shape(0), "there is not a number a query head");
    require(bits >= 1 && tables >= 1, "bits or tables are out of range");
    const Sampling sampling{per_entry(norm, args.groups, args.entries), q_norm.data(), q_mean.data(), faint.data(), bits, tables, least};
    args.sampling = &sampling;
    const Kernels kernels = kernels_for(parse_isa(isa));
    const nb::gil_scoped_release released;
    kernels.decode(args);
}

}  // namespace

void bind_decode(nb::module_& module) {
    const auto none = [](const char* name) { return nb::arg(name).noconvert().none(); };
    module.def("decode", &decode, nb::arg("q").noconvert(), nb::arg("keys").noconvert(), nb::arg("values").noconvert(),
               none("key_scale"), none("value_scale"), none("bias"), none("starts"), none("sizes"), none("counts"),
               nb::arg("first"), nb::arg("scale"), nb::arg("softcap"), nb::arg("out").noconvert(),
               nb::arg("lse").noconvert(), nb::arg("threads"), nb::arg("isa"),
               "Attend one query position to all entries, or to those that runs name; softcap 0 is none.");
    const auto array = [](const char* name) { return nb::arg(name).noconvert(); };
    module.def("sampled_decode", &sampled_decode, array("q"), array("keys"), array("values"), array("starts"), array("counts"),
               array("norm"), array("q_norm"), array("q_mean"), array("faint"), nb::arg("bits"), nb::arg("tables"), nb::arg("least"),
               nb::arg("first"), nb::arg("scale"), nb::arg("softcap"), array("out"), array("lse"), nb::arg("threads"), nb::arg("isa"),
               "Attend entries that hash tables sampled, each weighed by how likely that was.");
}

}  // namespace longspan
