#include <nanobind/stl/string_view.h>
#include <nanobind/stl/vector.h>

#include <algorithm>

#include "bind.hpp"
#include "longspan/kernels.hpp"
#include "tensors.hpp"

namespace longspan {
namespace {

using BytesIn = nb::ndarray<nb::pytorch, const std::uint8_t, nb::c_contig, nb::device::cpu>;
using BytesOut = nb::ndarray<nb::pytorch, std::uint8_t, nb::c_contig, nb::device::cpu>;

template <class Array>
CodeBooks books_of(const Stored& keys, const Array& centroids, int threads, Interrupt& interrupt) {
    CodeBooks books{rows_view(keys), static_cast<int>(keys.shape(0)), static_cast<std::int64_t>(keys.shape(1)),
                    0, 0, 0, threads, &interrupt};
    require(centroids.ndim() == 4 && centroids.shape(0) == keys.shape(0) && centroids.shape(1) * centroids.shape(3) == keys.shape(2) &&
                centroids.shape(2) >= 1 && centroids.shape(2) <= 256,
            "centroids are not [G, P, at most 256, D / P]");
    books.parts = static_cast<int>(centroids.shape(1));
    books.clusters = static_cast<int>(centroids.shape(2));
    books.part_size = static_cast<int>(centroids.shape(3));
    return books;
}

void code_train(const Stored& keys, int rounds, const FloatsOut& centroids, int threads, std::string_view isa) {
    Interrupt interrupt(&signal_pending);
    const CodeTrainArgs args{books_of(keys, centroids, threads, interrupt), rounds, centroids.data()};
    require(args.books.clusters <= args.books.tokens, "there are more centroids than keys");
    const Kernels kernels = kernels_for(parse_isa(isa));
    run_interruptible([&] { kernels.code_train(args); });
}

void code_encode(const Stored& keys, const FloatsIn& centroids, const BytesOut& code, int threads, std::string_view isa) {
    Interrupt interrupt(&signal_pending);
    const CodeEncodeArgs args{books_of(keys, centroids, threads, interrupt), centroids.data(), code.data()};
    require(code.size() == keys.shape(0) * centroids.shape(1) * keys.shape(1), "codes are not [G, P, T]");
    const Kernels kernels = kernels_for(parse_isa(isa));
    run_interruptible([&] { kernels.code_encode(args); });
}

// Of all, without a way out before the end: the compiler then does a vector at a time, in every step.
std::uint8_t largest(const BytesIn& codes) {
    std::uint8_t most = 0;
    const std::uint8_t* code = codes.data();
    const std::size_t count = codes.size();
    for (std::size_t i = 0; i < count; ++i) most = std::max(most, code[i]);
    return most;
}

void code_search(const std::vector<FloatsIn>& tables, const std::vector<BytesIn>& codes, const IntsOut& found, int threads,
                 std::string_view isa) {
    require(!codes.empty() && tables.size() == codes.size(), "every stretch has codes and a table");
    CodeSearchArgs args{};
    std::int64_t tokens = 0;
    for (std::size_t i = 0; i < codes.size(); ++i) {
        const FloatsIn& table = tables[i];
        require(codes[i].ndim() == 3 && table.ndim() == 4 && table.shape(1) == codes[i].shape(1), "tables are not [N, P, C, R], or codes not [G, P, T]");
        require(codes[i].shape(0) == codes[0].shape(0) && table.shape(0) == tables[0].shape(0) &&
                    table.shape(1) == tables[0].shape(1) && table.shape(3) == tables[0].shape(3),
                "stretches differ in shape");
        args.stretches.push_back({table.data(), codes[i].data(), static_cast<std::int64_t>(codes[i].shape(2)), static_cast<int>(table.shape(2))});
        tokens += args.stretches.back().tokens;
        require(codes[i].size() == 0 || largest(codes[i]) < table.shape(2), "a code names a centroid that is not there");
    }
    args.groups = static_cast<int>(codes[0].shape(0));
    args.parts = static_cast<int>(codes[0].shape(1));
    args.rows = static_cast<std::int64_t>(tables[0].shape(0));
    args.row_heads = static_cast<int>(tables[0].shape(3));
    require(args.groups > 0 && args.rows % args.groups == 0 && args.row_heads > 0, "rows do not fit KV heads");
    require(found.ndim() == 2 && static_cast<std::int64_t>(found.shape(0)) == args.rows &&
                static_cast<std::int64_t>(found.shape(1)) <= tokens,
            "what is found is not [N, K] with at most as many as there are tokens");
    args.wanted = static_cast<std::int64_t>(found.shape(1));
    args.found = found.data();
    args.threads = threads;
    const Kernels kernels = kernels_for(parse_isa(isa));
    const nb::gil_scoped_release released;
    kernels.code_search(args);
}

}  // namespace

void bind_product_codes(nb::module_& module) {
    const auto array = [](const char* name) { return nb::arg(name).noconvert(); };
    module.def("code_train", &code_train, array("keys"), nb::arg("rounds"), array("centroids"), nb::arg("threads"), nb::arg("isa"),
               "Cluster every part of the keys of each head, all of which are looked at.");
    module.def("code_encode", &code_encode, array("keys"), array("centroids"), array("code"), nb::arg("threads"), nb::arg("isa"),
               "The number of the nearest centroid of every part of each key.");
    module.def("code_search", &code_search, array("tables"), array("codes"), array("found"), nb::arg("threads"), nb::arg("isa"),
               "The tokens of largest weight by tables of scaled scores, a row of tables a row of tokens.");
}

}  // namespace longspan
