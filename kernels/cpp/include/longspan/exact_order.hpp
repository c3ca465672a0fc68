// What was found by codes, scored again with the keys themselves.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>

#include "longspan/attention_graph_nearest.hpp"
#include "longspan/attention_graph_scores.hpp"
#include "longspan/stored_keys.hpp"

namespace longspan::LONGSPAN_ISA {

// Ranks the first `count` of `found` anew, best first; token_of says which key a number in them stands for.
template <class TokenOf>
inline void order_exactly(const StoredKeys& keys, std::int64_t head, const float* query, int head_size, std::uint64_t* found,
                          int count, TokenOf&& token_of) {
    const std::int64_t group = head / keys.queries_a_head;
    with_storage(keys.dtype, [&](auto type) {
        const auto row_of = [&](std::uint64_t key) {
            const std::int64_t token = token_of(node_of(key));
            std::size_t at = keys.parts.size() - 1;
            while (keys.parts[at].first > token) --at;
            const KeyPart& part = keys.parts[at];
            return static_cast<decltype(type)>(part.keys) + group * part.head_stride + (token - part.first) * part.row_stride;
        };
        const int bytes = head_size * bytes_of(keys.dtype);
        for (int i = 0; i < count; ++i) {
            prefetch_row(row_of(found[std::min(i + 4, count - 1)]), bytes);
            found[i] = rank_key(product(query, row_of(found[i]), head_size), node_of(found[i]));
        }
    });
    std::sort(found, found + count, std::greater<>());
}

}  // namespace longspan::LONGSPAN_ISA
