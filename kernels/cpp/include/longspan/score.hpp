// Inner products of queries with rows, consecutive or scattered; one thread.
#pragma once

#include <algorithm>

#include "longspan/dots.hpp"
#include "longspan/score_args.hpp"

namespace longspan::LONGSPAN_ISA {

template <class T>
inline void score_typed(const ScoreArgs& args) {
    constexpr std::int64_t block = 64;
    const T* base = static_cast<const T*>(args.rows);
    Queries queries;
    queries.take(args.q, args.queries, args.head_size);
    const std::int64_t ahead = rows_ahead<T>(args.head_size);
    for (std::int64_t begin = 0; begin < args.count; begin += block) {
        const T* rows[block + most_ahead];
        const std::int64_t count = std::min(block, args.count - begin);
        const std::int64_t known = std::min(count + ahead, args.count - begin);
        for (std::int64_t t = 0; t < known; ++t)
            rows[t] = base + (args.ids ? args.ids[begin + t] : begin + t) * args.row_stride;
        for (std::int64_t t = 0; args.ids && begin == 0 && t < std::min(ahead, known); ++t) prefetch_row(rows[t], args.head_size);
        queries.dot(rows, count, known, args.out + begin, args.out_stride);
    }
}

inline void score(const ScoreArgs& args) {
    with_storage(args.dtype, [&]<class T>(const T*) { score_typed<T>(args); });
}

}  // namespace longspan::LONGSPAN_ISA
