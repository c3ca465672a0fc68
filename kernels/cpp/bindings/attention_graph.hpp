// What the files that bind the attention graph share.
#pragma once

#include <string>
#include <string_view>

#include "longspan/attention_graph_args.hpp"
#include "tensors.hpp"

namespace longspan {

using BytesIn = nb::ndarray<nb::pytorch, const std::uint8_t, nb::c_contig, nb::device::cpu>;

inline Dtype storage_of(std::string_view name) {
    if (name == "int8") return Dtype::i8;
    if (name == "bfloat16") return Dtype::bf16;
    if (name == "float16") return Dtype::f16;
    if (name == "float32") return Dtype::f32;
    throw std::invalid_argument("storage is '" + std::string(name) + "'; right is int8, bfloat16, float16 or float32");
}

inline std::string name_of(Dtype storage) {
    switch (storage) {
        case Dtype::i8: return "int8";
        case Dtype::bf16: return "bfloat16";
        case Dtype::f16: return "float16";
        case Dtype::f32: break;
    }
    return "float32";
}

// A graph of which only the maps are known.
inline AttentionGraph empty_graph(const FloatsIn& mean, const FloatsIn& to_codes, const FloatsIn& to_queries, std::string_view storage) {
    AttentionGraph graph;
    graph.storage = storage_of(storage);
    require(mean.ndim() == 1 && mean.size() > 0 && to_codes.ndim() == 2 && to_codes.shape(0) == mean.size() &&
                to_queries.ndim() == 2 && to_queries.shape(0) == mean.size() && to_queries.shape(1) == to_codes.shape(1) &&
                to_codes.shape(1) % 32 == 0 && to_codes.shape(1) > 0,
            "mean must be [D], to_codes and to_queries [D, W] with W a multiple of 32");
    graph.head_size = static_cast<int>(mean.size());
    graph.width = static_cast<int>(to_codes.shape(1));
    graph.mean.assign(mean.data(), mean.data() + mean.size());
    graph.to_codes.assign(to_codes.data(), to_codes.data() + to_codes.size());
    graph.to_queries.assign(to_queries.data(), to_queries.data() + to_queries.size());
    return graph;
}

AttentionGraph restore_graph(const FloatsIn& mean, const FloatsIn& to_codes, const FloatsIn& to_queries,
                             const FloatsIn& step, const BytesIn& codes, const FloatsIn& half_norms, const IntsIn& edges,
                             const IntsIn& entries, const IntsIn& token_of, std::string_view storage);
nb::dict graph_arrays(nb::handle self);

}  // namespace longspan
