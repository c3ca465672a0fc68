// One entry an operation: the same table is filled once an instruction set (cpp/isa) and chosen at run time.
#pragma once

#include "longspan/attention_graph_args.hpp"
#include "longspan/block_sparse_prefill_args.hpp"
#include "longspan/cell_scores_args.hpp"
#include "longspan/decode_args.hpp"
#include "longspan/hash_tables_args.hpp"
#include "longspan/isa.hpp"
#include "longspan/key_scan_args.hpp"
#include "longspan/kmeans_args.hpp"
#include "longspan/merge_args.hpp"
#include "longspan/product_codes_args.hpp"
#include "longspan/read_args.hpp"
#include "longspan/score_args.hpp"
#include "longspan/token_union_args.hpp"
#include "longspan/wave_decode_args.hpp"
#include "longspan/wave_search_args.hpp"

namespace longspan {

struct Kernels {
    void (*block_sparse_prefill)(const BlockSparseArgs&);
    void (*cell_scores)(const CellScoresArgs&);
    void (*code_encode)(const CodeEncodeArgs&);
    void (*code_search)(const CodeSearchArgs&);
    void (*code_train)(const CodeTrainArgs&);
    void (*decode)(const DecodeArgs&);
    bool (*graph_build)(const GraphBuildArgs&);
    void (*graph_insert)(const GraphInsertArgs&);
    void (*graph_nearest)(const GraphNearestArgs&);
    void (*graph_search)(const GraphSearchArgs&);
    void (*hash_build)(const HashBuildArgs&);
    void (*hash_search)(const HashSearchArgs&);
    void (*key_scan)(const KeyScanArgs&);
    void (*merge)(const MergeArgs&);
    std::uint64_t (*read)(const ReadArgs&);
    void (*score)(const ScoreArgs&);
    void (*segmented_kmeans)(const KmeansArgs&);
    void (*token_union)(const TokenUnionArgs&);
    void (*wave_decode)(const WaveDecodeArgs&);
    void (*wave_search)(const WaveSearchArgs&);
};

namespace portable {
Kernels kernels();
}
namespace avx2 {
Kernels kernels();
}
namespace avx512 {
Kernels kernels();
}
namespace avx512_bf16 {
Kernels kernels();
}
namespace amx {
Kernels kernels();
}
namespace neon {
Kernels kernels();
}
namespace neon_bf16 {
Kernels kernels();
}

inline Kernels kernels_for(Isa isa) {
#if defined(__x86_64__)
    switch (isa) {
        case Isa::avx2: return avx2::kernels();
        case Isa::avx512: return avx512::kernels();
        case Isa::avx512_bf16: return avx512_bf16::kernels();
        case Isa::amx: return amx::kernels();
        default: break;
    }
#elif defined(__aarch64__)
    if (isa == Isa::neon) return neon::kernels();
    if (isa == Isa::neon_bf16) return neon_bf16::kernels();
#else
    static_cast<void>(isa);
#endif
    return portable::kernels();
}

}  // namespace longspan
