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
def select_row(
    vote, most, first, second, count, C, G, FIRST, SECOND,
    BLOCK: tl.constexpr, ROUNDS: tl.constexpr,
):  # fmt: skip
    """The most[0] clusters of most votes of a row, and the most[1] next ones, by bisection of the
    votes' bits, which as integers are ordered as the votes are; ties go to the first.
    """
    row = tl.program_id(0).to(tl.int64)
    c = tl.arange(0, BLOCK)
    bits = tl.load(vote + row * C + c, c < C, -float("inf")).to(tl.int32, bitcast=True)
    live = tl.sum((bits >= 0).to(tl.int32), 0)  # an empty cluster's vote is -inf
    wanted_1 = tl.minimum(tl.minimum(tl.load(most + row), FIRST), live)
    wanted_2 = wanted_1 + tl.minimum(tl.minimum(tl.load(most + G + row), SECOND), live - wanted_1)
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
        low_1 = tl.where(enough_1, middle_1, low_1)
        high_1 = tl.where(enough_1, high_1, middle_1)
        low_2 = tl.where(enough_2, middle_2, low_2)
        high_2 = tl.where(enough_2, high_2, middle_2)
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


MOST_SELECTED = 16384
"""Clusters of a row that one program selects from; their numbers fit 15 bits."""


def selected(vote_GC: Tensor, retrieve: int, estimate: int, most_2G: Tensor) -> tuple[Tensor, ...]:
    """Ids [G, retrieve] and [G, estimate], unspecified beyond their counts [2, G]."""
    groups, clusters = vote_GC.shape
    ids = partial(torch.empty, dtype=torch.int32, device=vote_GC.device)
    first, second, count = ids(groups, retrieve), ids(groups, estimate), ids(2, groups)
    select_row[(groups,)](
        vote_GC, most_2G.contiguous(), first, second, count, clusters, groups, retrieve, estimate,
        BLOCK=pow2(clusters, 16), ROUNDS=31, num_warps=8 if clusters > 2048 else 4,
    )  # fmt: skip
    return first, second, count
