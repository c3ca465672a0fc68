"""The native decode step over clusters against the operations that it stands for."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import torch
from kernel_cases import STORAGE, assert_same

from longspan_kernels.wave_decode import wave_decode

if TYPE_CHECKING:
    from torch import Tensor

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


def both(given: dict[str, Any], isa: str) -> None:
    found = wave_decode(**given, backend=isa, threads=2)  # type: ignore[arg-type]
    right = wave_decode(**given, backend="reference")
    assert_same(found.partial, right.partial, 1e-4, 1e-4)
    assert torch.equal(found.retrieved.count_N, right.retrieved.count_N)
    assert torch.equal(found.estimated.count_N, right.estimated.count_N)
    for group, count in enumerate(right.retrieved.count_N):
        for mine, theirs in (
            (found.retrieved.start_NK, right.retrieved.start_NK),
            (found.retrieved.size_NK, right.retrieved.size_NK),
        ):
            assert torch.equal(mine[group, :count], theirs[group, :count])  # type: ignore[index]
    for group, count in enumerate(right.estimated.count_N):
        ids = (each.estimated.start_NK[group, :count].sort().values for each in (found, right))
        assert torch.equal(*ids)


@pytest.mark.parametrize("dtype", STORAGE[:3], ids=str)
@pytest.mark.parametrize(
    ("clusters", "retrieve", "estimate"), [(1, 1, 0), (7, 2, 5), (65, 9, 0), (2600, 40, 600)]
)
def test_sizes(isa: str, dtype: torch.dtype, clusters: int, retrieve: int, estimate: int) -> None:
    for groups, heads, width, cuts in ((1, 1, 8, ()), (2, 3, 80, (3, 7)), (3, 4, 128, (9,))):
        given = step(groups, heads, width, clusters, dtype, cuts)
        both({**given, "retrieve": retrieve, "estimate": estimate}, isa)


def test_votes_and_softcap(isa: str) -> None:
    given = step(2, 3, 64, 300, torch.bfloat16, (5,))
    for extra in ({"vote": "max"}, {"softcap": 2.0}, {"scale": 3.0}):
        both({**given, "retrieve": 20, "estimate": 70, **extra}, isa)


def test_empty_clusters_are_not_read(isa: str) -> None:
    given = step(2, 2, 16, 90, torch.float32, ())
    given["size_GC"][0, 5:] = 0
    given["size_GC"][1, 40:] = 0
    both({**given, "retrieve": 10, "estimate": 60}, isa)


def test_bf16_queries_of_other_precision_are_not_rounded(isa: str) -> None:
    given = step(2, 4, 128, 70, torch.bfloat16, ())
    both({**given, "q_HD": torch.randn(8, 128), "retrieve": 10, "estimate": 20}, isa)


def test_bad_input_is_named() -> None:
    given = {**step(2, 2, 16, 30, torch.float32, ()), "retrieve": 3, "estimate": 4}
    for change, what in (
        ({"retrieve": 31}, "retrieve=31"),
        ({"vote": "min"}, "vote is 'min'"),
        ({"q_HD": torch.full((4, 16), torch.nan)}, "q holds NaN"),
        ({"size_GC": given["size_GC"][:, 1:]}, "size has shape"),
        ({"stored": [Part(0, torch.ones(1, 9, 16), torch.ones(1, 9, 16))]}, "KV heads"),
        ({"softcap": -1.0}, "softcap is -1.0"),
    ):
        with pytest.raises(ValueError, match=what):
            wave_decode(**{**given, **change})
