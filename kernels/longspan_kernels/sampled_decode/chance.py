"""How likely an entry was to be sampled, for Triton kernels. Imports triton, so it is imported by
them alone.
"""

from __future__ import annotations

from math import pi

import triton
import triton.language as tl

from longspan_kernels.sampled_decode.reference import FAINT, LEAST_CHANCE, TINY

LEAST, SHORTEST, INVERSE_PI = tl.constexpr(LEAST_CHANCE), tl.constexpr(TINY), tl.constexpr(1 / pi)
AT_MEAN = tl.constexpr(FAINT)


@triton.jit
def turned(cosine):
    """The angle over pi, within 2e-8: Abramowitz and Stegun, 4.4.46, for acute ones."""
    x = tl.minimum(tl.abs(cosine), 1.0)
    series = -0.0170881256 + x * (0.0066700901 - x * 0.0012624911)
    series = -0.0501743046 + x * (0.0308918810 + x * series)
    series = 1.5707963050 + x * (-0.2145988016 + x * (0.0889789874 + x * series))
    return tl.sqrt(1.0 - x) * series * INVERSE_PI


@triton.jit
def together(none, one, more, none_too, one_too, more_too):
    """Probabilities of sharing codes in none, one or more of some tables and of some others."""
    more = more + (none + one) * more_too + one * one_too
    return none * none_too, none * one_too + one * none_too, more


@triton.jit
def chance(cosine, BITS: tl.constexpr, TABLES: tl.constexpr):
    """The reference's `probability`. It is a small difference there; here nothing is subtracted
    but from 1: what is known of some tables is doubled until it is known of all.
    """
    acute = turned(cosine)
    side = tl.where(cosine < 0, acute, 1.0 - acute)
    one = side
    for _ in tl.static_range(BITS - 1):
        one *= side
    none, more = 1.0 - one, 0.0 * one
    all_none, all_one, all_more = more + 1.0, more, more
    for bit in tl.static_range(32):
        if (TABLES >> bit) & 1:
            all_none, all_one, all_more = together(all_none, all_one, all_more, none, one, more)
        if TABLES >> (bit + 1):
            none, one, more = together(none, one, more, none, one, more)
    return all_more


@triton.jit
def unit(q_D):
    """A query of length 1, unless it is next to nothing."""
    return q_D / tl.maximum(tl.sqrt(tl.sum(q_D * q_D, 0)), SHORTEST)


@triton.jit
def log_weight(k_TD, unit_D, mean_D, norm_T, BITS: tl.constexpr, TABLES: tl.constexpr):
    """What is added to the scores of sampled entries; the angles are those of what was hashed."""
    product = tl.sum((k_TD.to(tl.float32) - mean_D[None, :]) * unit_D[None, :], 1)
    cosine = product / tl.maximum(norm_T, SHORTEST)
    off = norm_T > tl.sqrt(tl.sum(mean_D * mean_D, 0)) * AT_MEAN
    return -tl.log(chance(tl.where(off, cosine, 0.0), BITS, TABLES) + LEAST)
