// Array types of the bindings. Every argument of such a type is declared .noconvert(): no silent cast, no silent copy.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>

#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "longspan/decode_args.hpp"
#include "longspan/interrupt.hpp"
#include "longspan/score_args.hpp"
#include "longspan/stored_keys.hpp"

namespace longspan {

namespace nb = nanobind;

using FloatsIn = nb::ndarray<nb::pytorch, const float, nb::c_contig, nb::device::cpu>;
using FloatsOut = nb::ndarray<nb::pytorch, float, nb::c_contig, nb::device::cpu>;
using IntsIn = nb::ndarray<nb::pytorch, const std::int32_t, nb::c_contig, nb::device::cpu>;
using IntsOut = nb::ndarray<nb::pytorch, std::int32_t, nb::c_contig, nb::device::cpu>;
// Any storage type and any strides; see `rows_view`.
using Stored = nb::ndarray<nb::pytorch, nb::ro, nb::device::cpu>;
// [G, T], the entries of a group adjacent.
using PerEntryIn = nb::ndarray<nb::pytorch, const float, nb::ndim<2>, nb::device::cpu>;

inline void require(bool right, const char* message) {
    if (!right) throw std::invalid_argument(message);
}

Dtype dtype_of(const Stored& array);
RowsView rows_view(const Stored& array);  // of [G, T, D]
PerEntry per_entry(const std::optional<PerEntryIn>& array, std::int64_t groups, std::int64_t entries);
// Of stretches [G, T, D] with G dividing the queries [heads, head_size]; none where there are no stretches.
StoredKeys stored_keys(const std::vector<Stored>& parts, std::size_t heads, std::size_t head_size);
std::int64_t tokens_of(const std::vector<Stored>& parts);
std::vector<float> padded_queries(const Stored& q);  // [H, D] to float32 rows of query_stride(D)

// Whether Ctrl-C was pressed; takes the GIL.
bool signal_pending();

// Runs a long kernel without the GIL. Where it stops because of a signal, the signal's exception is raised.
template <class Body>
void run_interruptible(Body&& body) {
    try {
        const nb::gil_scoped_release released;
        body();
    } catch (const Stopped&) {
        throw nb::python_error();
    }
}

}  // namespace longspan
