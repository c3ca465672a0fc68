#include <nanobind/stl/string_view.h>

#include "bind.hpp"
#include "longspan/kernels.hpp"
#include "tensors.hpp"

namespace longspan {
namespace {

using BoolsIn = nb::ndarray<nb::pytorch, const bool, nb::c_contig, nb::device::cpu>;

void block_sparse_prefill(const Stored& q, const Stored& keys, const Stored& values,
                          const std::optional<BoolsIn>& blocks, const std::optional<BoolsIn>& columns, std::int64_t block, bool causal, float scale,
                          float softcap, const FloatsOut& out, const FloatsOut& lse, int threads, std::string_view isa) {
    Interrupt interrupt(&signal_pending);
    BlockSparseArgs args{};
    args.q = rows_view(q);
    args.keys = rows_view(keys);
    args.values = rows_view(values);
    args.heads = static_cast<int>(q.shape(0));
    args.positions = static_cast<std::int64_t>(q.shape(1));
    args.groups = static_cast<int>(keys.shape(0));
    args.entries = static_cast<std::int64_t>(keys.shape(1));
    args.head_size = static_cast<int>(keys.shape(2));
    require(q.shape(2) == keys.shape(2) && args.groups > 0 && args.heads % args.groups == 0, "queries do not fit keys");
    for (std::size_t axis = 0; axis < 3; ++axis) require(values.shape(axis) == keys.shape(axis), "values do not fit keys");
    require(block >= 1 && (!blocks || blocks->ndim() == 3), "blocks are not [H, X, Y]");
    const auto cells = static_cast<std::size_t>((args.positions + block - 1) / block * ((args.entries + block - 1) / block));
    require(!blocks || (blocks->shape(0) == q.shape(0) && blocks->size() == cells * q.shape(0)),
            "blocks do not fit queries and keys");
    require(!columns || columns->size() == q.shape(0) * keys.shape(1), "columns are not [H, T]");
    require(!causal || args.entries >= args.positions, "causal attention needs an entry a position");
    require(out.size() == q.size() && lse.size() == q.shape(0) * q.shape(1), "out or lse is not shaped as the queries");
    args.blocks = blocks ? blocks->data() : nullptr;
    args.columns = columns ? columns->data() : nullptr;
    args.block = block;
    args.causal = causal;
    args.scale = scale;
    args.softcap = softcap;
    args.out = out.data();
    args.lse = lse.data();
    args.threads = threads;
    args.interrupt = &interrupt;
    const Kernels kernels = kernels_for(parse_isa(isa));
    run_interruptible([&] { kernels.block_sparse_prefill(args); });
}

}  // namespace

void bind_block_sparse_prefill(nb::module_& module) {
    const auto array = [](const char* name) { return nb::arg(name).noconvert(); };
    module.def("block_sparse_prefill", &block_sparse_prefill, array("q"), array("keys"), array("values"),
               nb::arg("blocks").noconvert().none(), nb::arg("columns").noconvert().none(), nb::arg("block"), nb::arg("causal"), nb::arg("scale"),
               nb::arg("softcap"), array("out"), array("lse"), nb::arg("threads"), nb::arg("isa"),
               "Attend positions to chosen blocks, all if None, and columns of entries; softcap 0 is none.");
}

}  // namespace longspan
