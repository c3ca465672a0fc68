// Hash tables of random hyperplanes: tokens sorted by the sides of the planes that their keys lie on, and those that share
// a query's sides in two tables or more.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "longspan/centred_rows.hpp"
#include "longspan/hash_tables_args.hpp"
#include "longspan/nearest.hpp"

namespace longspan::LONGSPAN_ISA {

// Bits in a row, a stretch of them at a time.
class Bits {
   public:
    explicit Bits(std::int64_t count) : words_(count / 64 + 2) {}

    void clear() { std::fill(words_.begin(), words_.end(), 0); }
    // `count` divides 64 and `at`.
    void put(std::int64_t at, std::uint64_t bits) { words_[at / 64] |= bits << (at % 64); }
    std::uint32_t get(std::int64_t at, int count) const {
        const auto shift = static_cast<int>(at % 64);
        const std::uint64_t high = shift ? words_[at / 64 + 1] << (64 - shift) : 0;
        return static_cast<std::uint32_t>((words_[at / 64] >> shift | high) & ((std::uint64_t{1} << count) - 1));
    }

   private:
    std::vector<std::uint64_t> words_;
};

// code[table * tokens + t] of centred tokens [begin, end) of a group.
inline void hash_tokens(const HashBuildArgs& args, std::int64_t group, Span tokens, const Panels& panels,
                        std::uint16_t* code) {
    std::vector<float> x(tokens.size() * args.head_size);
    const float* mean = args.mean + group * args.head_size;
    for_rows(args.keys, group, tokens, [&](std::int64_t t, auto* row) {
        for (int d = 0; d < args.head_size; ++d) x[t * args.head_size + d] = to_float(row[d]) - mean[d];
    });
    std::vector<Bits> sides(tokens.size(), Bits(panels.count() * Panels::width));
    for (std::int64_t p = 0; p < panels.count(); ++p)
        for (std::int64_t t = 0; t < tokens.size(); t += tile_tokens) {
            const float* rows[tile_tokens];
            for (int i = 0; i < tile_tokens; ++i) rows[i] = &x[std::min(t + i, tokens.size() - 1) * args.head_size];
            Vec product[tile_tokens][Panels::vectors];
            multiply_panel(rows, panels.panel(p), args.head_size, product);
            for (std::int64_t i = 0; i < std::min<std::int64_t>(tile_tokens, tokens.size() - t); ++i)
                for (int c = 0; c < Panels::vectors; ++c)
                    sides[t + i].put(p * Panels::width + c * Vec::lanes, positive(product[i][c]));
        }
    for (int table = 0; table < args.tables; ++table)
        for (std::int64_t t = 0; t < tokens.size(); ++t)
            code[table * args.tokens + tokens.begin + t] =
                static_cast<std::uint16_t>(sides[t].get(static_cast<std::int64_t>(table) * args.bits, args.bits));
}

// By counting: tokens of one code keep their order.
inline void sort_table(const HashBuildArgs& args, std::int64_t group, std::int64_t table, const std::uint16_t* code) {
    const std::int64_t codes = std::int64_t{1} << args.bits, at = group * args.tables + table;
    std::int32_t* bound = args.bound + at * (codes + 1);
    std::int32_t* token = args.token + at * args.tokens;
    std::fill_n(bound, codes + 1, 0);
    for (std::int64_t t = 0; t < args.tokens; ++t) ++bound[code[t] + 1];
    for (std::int64_t c = 0; c < codes; ++c) bound[c + 1] += bound[c];
    std::vector<std::int32_t> next(bound, bound + codes);
    for (std::int64_t t = 0; t < args.tokens; ++t) token[next[code[t]]++] = static_cast<std::int32_t>(t);
}

inline void hash_build(const HashBuildArgs& args) {
    constexpr std::int64_t piece = 128;
    const int planes = args.tables * args.bits;
    std::vector<float> normals(static_cast<std::size_t>(planes) * args.head_size);
    for (int plane = 0; plane < planes; ++plane)
        for (int d = 0; d < args.head_size; ++d)
            normals[static_cast<std::size_t>(plane) * args.head_size + d] =
                args.planes[(static_cast<std::size_t>(plane / args.bits) * args.head_size + d) * args.bits + plane % args.bits];
    Panels panels;
    panels.pack(normals.data(), planes, args.head_size);
    std::vector<std::uint16_t> code(args.tables * args.tokens);
    for (std::int64_t group = 0; group < args.groups; ++group) {
#pragma omp parallel num_threads(args.threads)
        {
#pragma omp for schedule(dynamic, 1)
            for (std::int64_t begin = 0; begin < args.tokens; begin += piece)
                if (!args.interrupt->poll())
                    hash_tokens(args, group, {begin, std::min(begin + piece, args.tokens)}, panels, code.data());
#pragma omp for schedule(dynamic, 1)
            for (std::int64_t table = 0; table < args.tables; ++table)
                if (!args.interrupt->poll()) sort_table(args, group, table, &code[table * args.tokens]);
        }
        args.interrupt->raise();
    }
}

// Counts up to two, so that a token's tables fit in two bits of a byte.
inline void collisions(const HashSearchArgs& args, std::int64_t head, std::vector<std::uint8_t>& times) {
    const std::int64_t group = head / (args.heads / args.groups);
    times.assign((args.tokens + 7) / 8 * 8, 0);
    std::int64_t read = 0;
    for (int table = 0; table < args.tables; ++table) {
        const std::int64_t at = group * args.tables + table;
        const std::int32_t* bound = args.bound + at * (args.codes + 1) + args.code[head * args.tables + table];
        const std::int32_t* token = args.token + at * args.tokens;
        const std::int32_t begin = bound[0], end = bound[1];
        bool wrong = begin < 0 || end > args.tokens;
        for (std::int32_t i = begin; i < end && !wrong; ++i) {
            const auto t = static_cast<std::uint32_t>(token[i]);
            wrong = t >= args.tokens;
            if (!wrong) times[t] += times[t] < 2;
        }
        if (wrong) {
            (*args.read)[head] = -1;
            return;
        }
        read += end - begin;
    }
    std::vector<std::int32_t>& found = (*args.found)[head];
    for (std::int64_t t = 0; t < args.tokens; t += 8) {
        std::uint64_t eight;
        std::memcpy(&eight, &times[t], sizeof eight);
        if ((eight & 0x0202020202020202U) == 0) continue;
        for (std::int64_t i = t; i < t + 8; ++i)
            if (times[i] == 2) found.push_back(static_cast<std::int32_t>(i));
    }
    (*args.read)[head] = read;
}

inline void hash_search(const HashSearchArgs& args) {
#pragma omp parallel num_threads(args.threads)
    {
        std::vector<std::uint8_t> times;
#pragma omp for schedule(dynamic, 1)
        for (std::int64_t head = 0; head < args.heads; ++head) collisions(args, head, times);
    }
}

}  // namespace longspan::LONGSPAN_ISA
