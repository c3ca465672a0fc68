#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "bind.hpp"
#include "longspan/isa.hpp"

NB_MODULE(_cpu, module) {
    module.doc() = "The native CPU kernels of longspan; called through longspan_kernels.<operation>.";
    module.def("isas", &longspan::isas_here, "Instruction sets that this machine runs, narrowest first.");
    module.def("compiler", [] { return std::string(__VERSION__); }, "The compiler that built this extension.");
    longspan::bind_attention_graph(module);
    longspan::bind_block_cache(module);
    longspan::bind_block_sparse_prefill(module);
    longspan::bind_cell_scores(module);
    longspan::bind_cache_steps(module);
    longspan::bind_decode(module);
    longspan::bind_hash_tables(module);
    longspan::bind_key_scan(module);
    longspan::bind_merge(module);
    longspan::bind_page_gather(module);
    longspan::bind_product_codes(module);
    longspan::bind_read(module);
    longspan::bind_segmented_kmeans(module);
    longspan::bind_token_union(module);
    longspan::bind_wave_decode(module);
    longspan::bind_wave_search(module);
}
