// A bit a token says who is read; read off in order, they meet the clusters in order.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <vector>

#include "longspan/token_union_args.hpp"

namespace longspan::LONGSPAN_ISA {

inline void unite_group(const TokenUnionArgs& args, int group, std::vector<std::uint64_t>& bits) {
    bits.assign(static_cast<std::size_t>(args.tokens + 63) / 64, 0);
    const int a_group = args.heads / args.groups;
    const std::int32_t* place = args.place + group * args.tokens;
    for (int head = group * a_group; head < (group + 1) * a_group; ++head)
        for (std::int32_t i = 0; i < args.count[head]; ++i) {
            const std::int32_t token = args.token[head * args.found + i];
            const std::int64_t at = token >= 0 && token < args.tokens ? place[token] : -1;
            if (at >= 0 && at < args.tokens) bits[at >> 6] |= std::uint64_t{1} << (at & 63);
            else args.wrong->store(true, std::memory_order_relaxed);
        }
    const std::int32_t* size = args.size + group * args.clusters;
    std::int32_t* left = args.left + group * args.clusters;
    std::int32_t* united = args.union_place + group * a_group * args.found;
    std::copy_n(size, args.clusters, left);
    std::int32_t count = 0;
    std::int64_t cluster = 0, end = size[0];
    for (std::size_t word = 0; word < bits.size(); ++word)
        for (std::uint64_t rest = bits[word]; rest != 0; rest &= rest - 1) {
            const auto at = static_cast<std::int64_t>(word) * 64 + std::countr_zero(rest);
            while (at >= end && cluster + 1 < args.clusters) end += size[++cluster];
            if (at >= end) args.wrong->store(true, std::memory_order_relaxed);
            --left[cluster];
            united[count++] = static_cast<std::int32_t>(at);
        }
    args.union_count[group] = count;
}

inline void token_union(const TokenUnionArgs& args) {
#pragma omp parallel num_threads(args.threads) if (args.threads > 1 && args.groups > 1)
    {
        std::vector<std::uint64_t> bits;
#pragma omp for schedule(static)
        for (int group = 0; group < args.groups; ++group) unite_group(args, group, bits);
    }
}

}  // namespace longspan::LONGSPAN_ISA
