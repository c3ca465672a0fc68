// The kernels of avx512_bf16, but for those that matrix units serve better.
#define LONGSPAN_ISA amx
#include "longspan/bf16_cells.hpp"
#include "longspan/bf16_prefill.hpp"
#include "longspan/kernels.hpp"

namespace longspan::amx {

Kernels kernels() {
    Kernels table = avx512_bf16::kernels();
    table.block_sparse_prefill = [](const BlockSparseArgs& args) {
        if (bf16_serves(args)) return bf16_prefill(args);
        avx512_bf16::kernels().block_sparse_prefill(args);
    };
    table.cell_scores = [](const CellScoresArgs& args) {
        if (bf16_serves(args)) return bf16_cell_scores(args);
        avx512_bf16::kernels().cell_scores(args);
    };
    return table;
}

}  // namespace longspan::amx
