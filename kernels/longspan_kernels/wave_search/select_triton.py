"""The best of a row and the next ones in Triton, without sorting them."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl

from longspan_kernels.jit import pow2

if TYPE_CHECKING:
    from torch import Tensor


@triton.jit
def wanted(most, row, live, G, FIRST, SECOND):
    """How many clusters of a row are the best ones, and how many these and the next ones are."""
    first = tl.minimum(tl.minimum(tl.load(most + row), FIRST), live)
    return first, first + tl.minimum(tl.minimum(tl.load(most + G + row), SECOND), live - first)


@triton.jit
def narrowed(low, middle, high, enough):
    """The half in which the border lies."""
    return tl.where(enough, middle, low), tl.where(enough, high, middle)


@triton.jit
def vote_bits(vote, row, c, C):
    """Votes as integers of the same order; below 0 where a cluster is empty or there is none. NaN
    is no more than infinity: nothing may lie above where a search for the border begins.
    """
    bits = tl.load(vote + row * C + c, c < C, -float("inf")).to(tl.int32, bitcast=True)
    return tl.minimum(bits, 0x7F800000)


@triton.jit
def select_row(
    vote, most, first, second, count, C, G, FIRST, SECOND,
    BLOCK: tl.constexpr, ROUNDS: tl.constexpr,
):  # fmt: skip
    """The most[0] clusters of most votes of a row, and the most[1] next ones, by bisection of the
    votes' bits, which as integers are ordered as the votes are; ties go to the first.
    """
    row = tl.program_id(0).to(tl.int64)
    c = tl.arange(0, BLOCK)
    bits = vote_bits(vote, row, c, C)
    live = tl.sum((bits >= 0).to(tl.int32), 0)  # an empty cluster's vote is -inf
    wanted_1, wanted_2 = wanted(most, row, live, G, FIRST, SECOND)
    # at least wanted_i votes are low_i or more, fewer are high_i or more
    low_1 = tl.zeros((), tl.int32)
    low_2 = tl.zeros((), tl.int32)
    high_1 = tl.full((), 0x7FFFFFFF, tl.int32)
    high_2 = tl.full((), 0x7FFFFFFF, tl.int32)
    for _ in range(ROUNDS):
        middle_1 = low_1 + (high_1 - low_1) // 2
        middle_2 = low_2 + (high_2 - low_2) // 2
        both = (bits >= middle_1).to(tl.int32) + ((bits >= middle_2).to(tl.int32) << 16)
        both = tl.sum(both, 0)
        enough_1 = (both & 0xFFFF) >= wanted_1
        enough_2 = (both >> 16) >= wanted_2
        low_1, high_1 = narrowed(low_1, middle_1, high_1, enough_1)
        low_2, high_2 = narrowed(low_2, middle_2, high_2, enough_2)
    above = (bits > low_1).to(tl.int32) + ((bits > low_2).to(tl.int32) << 16)
    equal = (bits == low_1).to(tl.int32) + ((bits == low_2).to(tl.int32) << 16)
    more, equals = tl.sum(above, 0), tl.cumsum(equal, 0)
    in_1 = ((above & 1) > 0) | (
        ((equal & 1) > 0) & ((equals & 0xFFFF) <= wanted_1 - (more & 0xFFFF))
    )
    in_2 = ((above >> 16) > 0) | (((equal >> 16) > 0) & ((equals >> 16) <= wanted_2 - (more >> 16)))
    in_2 = in_2 & ~in_1
    place = tl.cumsum(in_1.to(tl.int32) + (in_2.to(tl.int32) << 16), 0)
    tl.store(first + row * FIRST + (place & 0xFFFF) - 1, c, in_1)
    tl.store(second + row * SECOND + (place >> 16) - 1, c, in_2)
    tl.store(count + row, wanted_1)
    tl.store(count + G + row, wanted_2 - wanted_1)


@triton.jit
def select_long_row(
    vote, most, first, second, count, C, G, FIRST, SECOND,
    BLOCK: tl.constexpr, ROUNDS: tl.constexpr,
):  # fmt: skip
    """As `select_row`, for rows that no program holds: they are read again in every round."""
    row = tl.program_id(0).to(tl.int64)
    live = tl.zeros((), tl.int32)
    for begin in range(0, C, BLOCK):
        live += tl.sum((vote_bits(vote, row, begin + tl.arange(0, BLOCK), C) >= 0).to(tl.int32), 0)
    wanted_1, wanted_2 = wanted(most, row, live, G, FIRST, SECOND)
    low_1 = tl.zeros((), tl.int32)
    low_2 = tl.zeros((), tl.int32)
    high_1 = tl.full((), 0x7FFFFFFF, tl.int32)
    high_2 = tl.full((), 0x7FFFFFFF, tl.int32)
    for _ in range(ROUNDS):
        middle_1 = low_1 + (high_1 - low_1) // 2
        middle_2 = low_2 + (high_2 - low_2) // 2
        found_1 = tl.zeros((), tl.int32)
        found_2 = tl.zeros((), tl.int32)
        for begin in range(0, C, BLOCK):
            bits = vote_bits(vote, row, begin + tl.arange(0, BLOCK), C)
            found_1 += tl.sum((bits >= middle_1).to(tl.int32), 0)
            found_2 += tl.sum((bits >= middle_2).to(tl.int32), 0)
        enough_1 = found_1 >= wanted_1
        enough_2 = found_2 >= wanted_2
        low_1, high_1 = narrowed(low_1, middle_1, high_1, enough_1)
        low_2, high_2 = narrowed(low_2, middle_2, high_2, enough_2)
    ties_1, ties_2 = wanted_1, wanted_2
    for begin in range(0, C, BLOCK):
        bits = vote_bits(vote, row, begin + tl.arange(0, BLOCK), C)
        ties_1 -= tl.sum((bits > low_1).to(tl.int32), 0)
        ties_2 -= tl.sum((bits > low_2).to(tl.int32), 0)
    place_1 = tl.full((), -1, tl.int32)
    place_2 = tl.full((), -1, tl.int32)
    for begin in range(0, C, BLOCK):
        c = begin + tl.arange(0, BLOCK)
        bits = vote_bits(vote, row, c, C)
        equal_1, equal_2 = (bits == low_1).to(tl.int32), (bits == low_2).to(tl.int32)
        in_1 = (bits > low_1) | ((equal_1 > 0) & (tl.cumsum(equal_1, 0) <= ties_1))
        in_2 = (bits > low_2) | ((equal_2 > 0) & (tl.cumsum(equal_2, 0) <= ties_2))
        in_2 = in_2 & ~in_1
        at_1, at_2 = tl.cumsum(in_1.to(tl.int32), 0), tl.cumsum(in_2.to(tl.int32), 0)
        tl.store(first + row * FIRST + place_1 + at_1, c, in_1)
        tl.store(second + row * SECOND + place_2 + at_2, c, in_2)
        ties_1 -= tl.sum(equal_1, 0)
        ties_2 -= tl.sum(equal_2, 0)
        place_1 += tl.sum(in_1.to(tl.int32), 0)
        place_2 += tl.sum(in_2.to(tl.int32), 0)
    tl.store(count + row, wanted_1)
    tl.store(count + G + row, wanted_2 - wanted_1)


HELD = 16384
"""Clusters of a row that one program holds; their numbers fit 15 bits."""
READ = 4096
"""Clusters that it reads at once where there are more."""


def selected(vote_GC: Tensor, retrieve: int, estimate: int, most_2G: Tensor) -> tuple[Tensor, ...]:
    """Ids [G, retrieve] and [G, estimate], unspecified beyond their counts [2, G]."""
    groups, clusters = vote_GC.shape
    ids = partial(torch.empty, dtype=torch.int32, device=vote_GC.device)
    first, second, count = ids(groups, retrieve), ids(groups, estimate), ids(2, groups)
    arrays = vote_GC, most_2G.contiguous(), first, second, count
    sizes = clusters, groups, retrieve, estimate
    options = {"ROUNDS": 31, "num_warps": 8 if clusters > 2048 else 4}
    if clusters <= HELD:
        select_row[(groups,)](*arrays, *sizes, BLOCK=pow2(clusters, 16), **options)
    else:
        select_long_row[(groups,)](*arrays, *sizes, BLOCK=READ, **options)
    return first, second, count
