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


def test_what_outweighs_all_others_is_not_attended(isa: str) -> None:
    """Another head's cluster wins; or a wide one is read, whose keys weigh little."""
    q_HD, eye_GCD = 10 * torch.eye(2, 8), 10 * torch.eye(3, 8)[None]
    eye_GCD[0, 2] = 0
    means_GCD = torch.arange(1.0, 4.0)[None, :, None].expand(1, 3, 8).contiguous()
    ones_GC, first_GC = torch.ones(1, 3).int(), torch.arange(3)[None].int()
    given = {
        "q_HD": q_HD, "centroids_GCD": eye_GCD, "means_GCD": means_GCD, "start_GC": first_GC,
        "size_GC": ones_GC, "stored": [Part(0, eye_GCD, means_GCD)], "indexed": (0, 3),
        "steady": (), "scale": 1.0,
    }  # fmt: skip
    right = both({**given, "retrieve": 0, "estimate": 1}, isa)
    torch.testing.assert_close(right.partial.lse, torch.tensor([100.0, 0.0]))
    wide = given | {
        "q_HD": torch.eye(8)[7:], "start_GC": 4 * first_GC, "size_GC": 4 * ones_GC,
        "centroids_GCD": torch.zeros(1, 3, 8), "indexed": (0, 12),
        "stored": [Part(0, torch.zeros(1, 12, 8), means_GCD.repeat_interleave(4, 1))],
        "spread_GC": torch.tensor([[6000.0, 0.0, 0.0]]), "vote": "mass",
    }  # fmt: skip
    for gaussian in (True, False):
        for softcap in (None, 5.0):
            asked = {"retrieve": 1, "estimate": 2, "gaussian": gaussian, "softcap": softcap}
            right = both({**wide, **asked}, isa)
            torch.testing.assert_close(right.partial.out, torch.full((1, 8), 2.0))


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
