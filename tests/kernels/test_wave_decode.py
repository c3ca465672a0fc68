"""The native decode step over clusters against the operations that it stands for."""

from __future__ import annotations

import pytest
import torch
from kernel_cases import STORAGE
from wave_cases import Part, both, step

from longspan_kernels.wave_decode import wave_decode


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


@pytest.mark.parametrize("mass", [None, {"tolerance": 0.01}, {"vote": "mass"}])
def test_one_cluster_outweighs_all_others(isa: str, mass: dict[str, float | str] | None) -> None:
    """By so much that their shares are subnormal, or 0."""
    clusters = 4200  # more than are weighed together
    given = step(1, 2, 16, clusters, torch.float32, ())
    if mass is not None:
        given |= {"gaussian": True, "spread_GC": 1e-3 * torch.rand(1, clusters), **mass}
    (part,) = given["stored"]
    given["size_GC"][0, 0] += 1
    given["centroids_GCD"][..., 0], part.keys_GTD[..., 0] = 0, 0
    given["centroids_GCD"][0, 0, 0], part.keys_GTD[0, 0, 0] = 1, 1  # the cluster, and a sink
    for ahead in range(80, 112, 2):
        given["q_HD"][:, 0] = ahead / given["scale"]
        both({**given, "retrieve": 1, "estimate": clusters - 1}, isa)


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
