#include <nanobind/stl/string_view.h>

#include "bind.hpp"
#include "longspan/kernels.hpp"
#include "tensors.hpp"

namespace longspan {
namespace {

void cell_scores(const Stored& q, const Stored& keys, int stride, int cells, std::int64_t ahead, float scale, float softcap,
                 const FloatsOut& lse, int threads, std::string_view isa) {
    Interrupt interrupt(&signal_pending);
    CellScoresArgs args{};
    args.q = rows_view(q);
    args.keys = rows_view(keys);
    args.heads = static_cast<int>(q.shape(0));
    args.positions = static_cast<std::int64_t>(q.shape(1));
    args.groups = static_cast<int>(keys.shape(0));
    args.entries = static_cast<std::int64_t>(keys.shape(1));
    args.head_size = static_cast<int>(keys.shape(2));
    require(q.shape(2) == keys.shape(2) && args.groups > 0 && args.heads % args.groups == 0, "queries do not fit keys");
    require(stride >= 1 && cells >= 1 && cells <= 32 && (cells & (cells - 1)) == 0, "a block has 1 to 32 cells, a power of two");
    require(ahead >= 0, "the first position lies before the first entry");
    const std::int64_t block = static_cast<std::int64_t>(stride) * cells;
    args.rows = (args.positions + block - 1) / block * cells;
    args.blocks = (args.entries + block - 1) / block;
    require(lse.size() == q.shape(0) * static_cast<std::size_t>(args.rows * args.blocks), "lse is not [H, rows, blocks]");
    args.ahead = ahead;
    args.stride = stride;
    args.cells = cells;
    args.scale = scale;
    args.softcap = softcap;
    args.lse = lse.data();
    args.threads = threads;
    args.interrupt = &interrupt;
    const Kernels kernels = kernels_for(parse_isa(isa));
    run_interruptible([&] { kernels.cell_scores(args); });
}

}  // namespace

void bind_cell_scores(nb::module_& module) {
    const auto array = [](const char* name) { return nb::arg(name).noconvert(); };
    module.def("cell_scores", &cell_scores, array("q"), array("keys"), nb::arg("stride"), nb::arg("cells"), nb::arg("ahead"), nb::arg("scale"),
               nb::arg("softcap"), array("lse"), nb::arg("threads"), nb::arg("isa"),
               "Log-sum-exps of what cells of positions give to blocks of cells of entries; softcap 0 is none.");
}

}  // namespace longspan
