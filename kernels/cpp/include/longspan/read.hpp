// Reads memory and does next to nothing with it: what the machine's read bandwidth is measured with.
#pragma once

#include <cstdint>

#include "longspan/read_args.hpp"

namespace longspan::LONGSPAN_ISA {

inline std::uint64_t read(const ReadArgs& args) {
    std::uint64_t all = 0;
#pragma omp parallel for schedule(static) num_threads(args.threads) reduction(^ : all)
    for (std::int64_t i = 0; i < args.count; ++i) all ^= args.words[i];
    return all;
}

}  // namespace longspan::LONGSPAN_ISA
