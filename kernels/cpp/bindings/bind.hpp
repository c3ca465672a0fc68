// One function an operation registers it; each is defined in its own file.
#pragma once

#include <nanobind/nanobind.h>

namespace longspan {

void bind_attention_graph(nanobind::module_& module);
void bind_block_cache(nanobind::module_& module);
void bind_block_sparse_prefill(nanobind::module_& module);
void bind_cell_scores(nanobind::module_& module);
void bind_cache_steps(nanobind::module_& module);
void bind_decode(nanobind::module_& module);
void bind_hash_tables(nanobind::module_& module);
void bind_key_scan(nanobind::module_& module);
void bind_merge(nanobind::module_& module);
void bind_page_gather(nanobind::module_& module);
void bind_product_codes(nanobind::module_& module);
void bind_read(nanobind::module_& module);
void bind_segmented_kmeans(nanobind::module_& module);
void bind_token_union(nanobind::module_& module);
void bind_wave_decode(nanobind::module_& module);
void bind_wave_search(nanobind::module_& module);

}  // namespace longspan
