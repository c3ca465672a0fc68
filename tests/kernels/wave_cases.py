"""Steps over clusters that the tests of `wave_decode` share."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from kernel_cases import assert_same

from longspan_kernels.wave_decode import wave_decode

if TYPE_CHECKING:
    from torch import Tensor

    from longspan_kernels.types import Runs, WaveStep

SINK, LOCAL = 3, 20


class Part(NamedTuple):
    first: int
    keys_GTD: Tensor
    values_GTD: Tensor


def step(
    groups: int, heads: int, width: int, clusters: int, dtype: torch.dtype, cuts: tuple[int, ...]
) -> dict[str, Any]:
    """Arguments of a step over clusters of 0 to 9 slots, in parts that end at shares `cuts`."""
    size_GC = torch.randint(0, 10, (groups, clusters)).int()
    size_GC[:, -1] += size_GC.sum(1).max() - size_GC.sum(1)  # every head has as many slots
    start_GC = SINK + size_GC.cumsum(1).int() - size_GC
    stop = SINK + int(size_GC[0].sum())
    slots = stop + LOCAL
    keys_GTD, values_GTD = torch.randn(2, groups, slots, width).to(dtype)
    ends = [0, *(slots * cut // 10 for cut in cuts), slots]
    return {
        "q_HD": torch.randn(groups * heads, width).to(dtype),
        "centroids_GCD": torch.randn(groups, clusters, width).to(dtype),
        "means_GCD": torch.randn(groups, clusters, width).to(dtype),
        "start_GC": start_GC,
        "size_GC": size_GC,
        "stored": [
            Part(a, keys_GTD[:, a:b], values_GTD[:, a:b]) for a, b in itertools.pairwise(ends)
        ],
        "indexed": (SINK, stop),
        "steady": ((0, SINK), (stop, slots)),
        "scale": width**-0.5,
    }


def runs_of(runs: Runs, row: int, count: int) -> list[tuple[int, int]]:
    """First entry and size of the runs of a row."""
    assert runs.size_NK is not None
    start_K, size_K = runs.start_NK[row, :count].tolist(), runs.size_NK[row, :count].tolist()
    return list(zip(start_K, size_K, strict=True))


def both(given: dict[str, Any], isa: str) -> WaveStep:
    """Compares an instruction set with the reference, whose step it returns."""
    found = wave_decode(**given, backend=isa, threads=2)  # type: ignore[arg-type]
    right = wave_decode(**given, backend="reference")
    assert_same(found.partial, right.partial, 1e-4, 1e-4)
    assert torch.equal(found.retrieved.count_N, right.retrieved.count_N)
    assert torch.equal(found.estimated.count_N, right.estimated.count_N)
    for group, count in enumerate(right.retrieved.count_N):
        mine, theirs = (runs_of(each.retrieved, group, int(count)) for each in (found, right))
        best = given["retrieve"]  # what a tolerance adds to these comes in any order
        assert mine[:best] == theirs[:best]
        assert sorted(mine) == sorted(theirs)
    for group, count in enumerate(right.estimated.count_N):
        ids = (each.estimated.start_NK[group, :count].sort().values for each in (found, right))
        assert torch.equal(*ids)
    return right
