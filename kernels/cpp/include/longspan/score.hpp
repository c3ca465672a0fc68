// Inner products of queries with rows, consecutive or scattered; one thread.
#pragma once

#include <algorithm>

#include "longspan/dots.hpp"
#include "longspan/score_args.hpp"

namespace longspan::LONGSPAN_ISA {

template <class T>
inline void prefetch_row(const T* row, int head_size) {
    const char* bytes = reinterpret_cast<const char*>(row);
    for (std::size_t line = 0; line < head_size * sizeof(T); line += 64) __builtin_prefetch(bytes + line);
}

template <class T>
inline void score_typed(const ScoreArgs& args) {
    constexpr std::int64_t block = 64;
    const T* base = static_cast<const T*>(args.rows);
    const auto row_at = [&](std::int64_t t) { return base + (args.ids ? args.ids[t] : t) * args.row_stride; };
    const std::int64_t ahead = args.ids ? 16 : 0;
    for (std::int64_t t = 0; t < std::min(ahead, args.count); ++t) prefetch_row(row_at(t), args.head_size);
    for (std::int64_t begin = 0; begin < args.count; begin += block) {
        const T* rows[block];
        const std::int64_t count = std::min(block, args.count - begin);
        for (std::int64_t t = 0; t < count; ++t) rows[t] = row_at(begin + t);
        for (std::int64_t t = ahead; ahead && t < ahead + count && begin + t < args.count; ++t)
            prefetch_row(row_at(begin + t), args.head_size);
        for_query_tiles(args.queries, [&](int r, auto tile) {
            dot_rows<tile()>(args.q + r * query_stride(args.head_size), rows, count, args.head_size,
                             args.out + r * args.out_stride + begin, args.out_stride);
        });
    }
}

inline void score(const ScoreArgs& args) {
    with_storage(args.dtype, [&]<class T>(const T*) { score_typed<T>(args); });
}

}  // namespace longspan::LONGSPAN_ISA
