// The vector type of the instruction set being compiled (LONGSPAN_ISA), with the functions that all of them share.
#pragma once

#if defined(__AVX512F__)
#include "longspan/simd/avx512.hpp"
#elif defined(__AVX2__)
#include "longspan/simd/avx2.hpp"
#elif defined(LONGSPAN_NEON)
#include "longspan/simd/neon.hpp"
#else
#include "longspan/simd/portable.hpp"
#endif

namespace longspan::LONGSPAN_ISA {

// GCC takes a loop of nothing but __builtin_prefetch for one without effect, and drops it.
inline void prefetch(const char* address) {
#if defined(__x86_64__)
    asm volatile("prefetcht0 %0" : : "m"(*address));
#elif defined(__aarch64__)
    asm volatile("prfm pldl1keep, %0" : : "Q"(*address));
#else
    __builtin_prefetch(address);
#endif
}

// The elements of a row from `d` on, zeros beyond its end.
template <class T>
inline Vec load_tail(const T* row, int d, int head_size) {
    if constexpr (Vec::lanes > 8) {
        if (d + Vec::lanes > head_size) return load_half(row + d);
    }
    static_cast<void>(head_size);
    return load(row + d);
}

// e^x for x <= 0, to 2 units in the last place; 0 below -87 (results would be subnormal); NaN stays NaN.
inline Vec exp(Vec x) {
    const Vec bounded = max(broadcast(-88.0F), x);
    const Vec n = round(bounded * broadcast(1.44269504F));
    // ln 2 in two parts, the first of few bits, so that r is nearly exact
    Vec r = fma(n, broadcast(-0.693359375F), bounded);
    r = fma(n, broadcast(2.12194440e-4F), r);
    Vec p = broadcast(1.9875691500e-4F);
    p = fma(p, r, broadcast(1.3981999507e-3F));
    p = fma(p, r, broadcast(8.3334519073e-3F));
    p = fma(p, r, broadcast(4.1665795894e-2F));
    p = fma(p, r, broadcast(1.6666665459e-1F));
    p = fma(p, r, broadcast(5.0000001201e-1F));
    p = fma(p, r * r, r) + broadcast(1.0F);
    return zero_below(x, -87.0F, p * power_of_two(n));
}

inline Vec tanh(Vec x) {
    const Vec size = max(broadcast(0.0F) - x, x);
    const Vec small = exp(broadcast(-2.0F) * size);
    const Vec far = (broadcast(1.0F) - small) / (broadcast(1.0F) + small);
    // near 0 the difference above cancels: an odd polynomial instead
    const Vec square = size * size;
    Vec p = broadcast(-5.70498873e-3F);
    p = fma(p, square, broadcast(2.06390888e-2F));
    p = fma(p, square, broadcast(-5.37397156e-2F));
    p = fma(p, square, broadcast(1.33314422e-1F));
    p = fma(p, square, broadcast(-3.33332819e-1F));
    const Vec result = where_greater(broadcast(0.625F), size, fma(p * square, size, size), far);
    return zero_below(x, 0.0F, result + result) - result;
}

}  // namespace longspan::LONGSPAN_ISA
