// Array types of the bindings. Every argument of such a type is declared .noconvert(): no silent cast, no silent copy.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <cstdint>
#include <stdexcept>
#include <string>

namespace longspan {

namespace nb = nanobind;

template <class T, class Shape>
using Dense = nb::ndarray<T, Shape, nb::c_contig, nb::device::cpu>;

using FloatsIn = nb::ndarray<nb::pytorch, const float, nb::c_contig, nb::device::cpu>;
using FloatsOut = nb::ndarray<nb::pytorch, float, nb::c_contig, nb::device::cpu>;

}  // namespace longspan
