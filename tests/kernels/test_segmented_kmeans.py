"""The native clustering against the reference."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from kernel_cases import STORAGE

from longspan_kernels.segmented_kmeans import segmented_kmeans
from longspan_kernels.types import Clusters

if TYPE_CHECKING:
    from longspan_kernels.segmented_kmeans.reference_seeds import Seeding


def rows(groups: int, tokens: int, width: int) -> torch.Tensor:
    """Keys in tight lumps far from one another and the origin: no choice hangs on rounding."""
    lumps = torch.randint(0, 1 + tokens // 8, (groups, tokens, 1)).expand(-1, -1, width)
    centres = 3 * torch.randn(groups, 1 + tokens // 8, width) + 2
    return centres.gather(1, lumps) + 0.05 * torch.randn(groups, tokens, width)


def of_tokens(found: Clusters, numbers_GC: torch.Tensor) -> torch.Tensor:
    """[G, T, ..]: what `numbers_GC` says of the cluster of each token."""
    groups, tokens = found.order_GT.shape
    described = torch.zeros(groups, tokens, *numbers_GC.shape[2:], dtype=numbers_GC.dtype)
    for g in range(groups):
        repeated = numbers_GC[g].repeat_interleave(found.size_GC[g].long(), dim=0)
        described[g, found.order_GT[g]] = repeated
    return described


def assert_same(found: Clusters, expected: Clusters) -> None:
    """The same clusters; their numbers may differ where one token seeded several of them."""
    if found.size_GC.shape[1] <= found.order_GT.shape[1]:
        for name in ("order_GT", "start_GC", "size_GC"):
            assert torch.equal(getattr(found, name), getattr(expected, name)), name
    for name in ("size_GC", "centroids_GCD", "values_GCD", "spread_GC"):
        assert getattr(found, name).isfinite().all(), name
        mine, theirs = (of_tokens(c, getattr(c, name)) for c in (found, expected))
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("final", ["segment", "global"])
@pytest.mark.parametrize("dtype", STORAGE[:3], ids=str)
@pytest.mark.parametrize(
    ("tokens", "clusters", "segments", "width"),
    [
        (1, 1, 1, 8),
        (7, 3, 2, 16),
        (63, 64, 1, 64),
        (65, 80, 3, 96),
        (500, 49, 1, 128),
        (2001, 95, 4, 80),
    ],
)
def test_sizes(
    isa: str, final: str, dtype: torch.dtype, tokens: int, clusters: int, segments: int, width: int
) -> None:
    keys_GTD = rows(3, tokens, width).to(dtype)
    values_GTD = torch.randn(3, tokens, width).to(dtype)
    shape = {"clusters": clusters, "segments": segments, "final": final}
    # one token may seed several clusters, whose later course hangs on rounding
    for rounds in (1, 2, 10) if clusters <= tokens else (1,):
        found, expected = (
            segmented_kmeans(
                keys_GTD,
                values_GTD,
                iterations=rounds,
                backend=backend,
                threads=1,
                **shape,  # type: ignore[arg-type]
            )
            for backend in (isa, "reference")
        )
        assert_same(found, expected)


def test_random_keys_cluster_as_well_as_with_the_reference(isa: str) -> None:
    """Where near ties abound the labels may differ, the quality may not."""
    keys_GTD, values_GTD = torch.randn(2, 4000, 64), torch.randn(2, 4000, 64)
    spread = []
    for backend in (isa, "reference"):
        found = segmented_kmeans(keys_GTD, values_GTD, clusters=250, segments=2, backend=backend)  # type: ignore[arg-type]
        assert found.size_GC.sum(1).tolist() == [4000, 4000]
        assert torch.equal(found.order_GT.sort(1).values, torch.arange(4000).expand(2, -1))
        spread.append((found.spread_GC * found.size_GC).sum().item())
        for g in range(2):
            c = int(found.size_GC[g].argmax())
            begin = int(found.start_GC[g, c])
            ids = found.order_GT[g, begin : begin + int(found.size_GC[g, c])]
            torch.testing.assert_close(found.centroids_GCD[g, c], keys_GTD[g, ids].mean(0))
            torch.testing.assert_close(found.values_GCD[g, c], values_GTD[g, ids].mean(0))
    assert spread[0] == pytest.approx(spread[1], rel=2e-3)


@pytest.mark.parametrize("case", ["equal", "zeros", "huge", "one far"])
@pytest.mark.parametrize("seeding", ["even", "mixed", "farthest"])
def test_hard_data(isa: str, case: str, seeding: Seeding) -> None:
    keys_GTD = torch.randn(1, 200, 32)
    if case in ("equal", "zeros"):
        keys_GTD[:] = keys_GTD[:, :1] * (case == "equal")
    elif case == "huge":
        keys_GTD *= 1e15
    else:
        keys_GTD[:, 7] = 1e6
    found = segmented_kmeans(
        keys_GTD, torch.randn(1, 200, 32), clusters=20, seeding=seeding, backend=isa
    )
    assert int(found.size_GC.sum()) == 200
    assert torch.equal(found.order_GT.sort(1).values[0], torch.arange(200))
    for tensor in (found.centroids_GCD, found.values_GCD):
        assert tensor.isfinite().all()


def test_the_spread_of_equal_keys_is_none(isa: str) -> None:
    """Far from the mean of all, so that a difference of squares would be some."""
    keys_GTD = (30 * torch.randn(2, 40, 128)).repeat_interleave(16, 1)
    keys_GTD[:, :16] += 1e-3 * torch.randn(2, 16, 128)
    for backend in (isa, "reference"):
        found = segmented_kmeans(keys_GTD, keys_GTD, clusters=40, iterations=3, backend=backend)  # type: ignore[arg-type]
        spread_GT = of_tokens(found, found.spread_GC)
        assert spread_GT[:, 16:].max() < 1e-9
        within_G = keys_GTD[:, :16].double().var(1, correction=0).mean(-1)
        torch.testing.assert_close(spread_GT[:, 0].double(), within_G, rtol=1e-2, atol=0)


def test_strided_keys_of_whole_numbers(isa: str) -> None:
    store_GTD = torch.randint(-100, 100, (2, 90, 3, 24)).to(torch.int8)
    keys_GTD, values_GTD = store_GTD[:, 10:, 0], store_GTD[:, 10:, 2]
    found, expected = (
        segmented_kmeans(keys_GTD, values_GTD, clusters=5, backend=backend, iterations=3)  # type: ignore[arg-type]
        for backend in (isa, "reference")
    )
    assert_same(found, expected)


@pytest.mark.parametrize("segments", [1, 6])
@pytest.mark.parametrize("seeding", ["even", "farthest"])
def test_threads_change_nothing(isa: str, segments: int, seeding: Seeding) -> None:
    keys_GTD, values_GTD = torch.randn(1, 3000, 32), torch.randn(1, 3000, 32)
    one, two = (
        segmented_kmeans(
            keys_GTD,
            values_GTD,
            clusters=190,
            segments=segments,
            seeding=seeding,
            backend=isa,
            threads=n,
        )
        for n in (1, 2)
    )
    for name in Clusters.__slots__:
        assert torch.equal(getattr(one, name), getattr(two, name)), name


@pytest.mark.parametrize("seeding", ["mixed", "farthest"])
@pytest.mark.parametrize(
    ("tokens", "clusters", "segments", "width"),
    [(1, 1, 1, 8), (7, 3, 2, 16), (63, 64, 1, 64), (65, 64, 3, 96), (700, 150, 2, 40)],
)
def test_seeds_that_lie_apart(
    isa: str, seeding: str, tokens: int, clusters: int, segments: int, width: int
) -> None:
    keys_GTD = torch.randn(3, tokens, width) + 1
    shape = {"clusters": clusters, "segments": segments, "seeding": seeding, "iterations": 1}
    found, expected = (
        segmented_kmeans(keys_GTD, keys_GTD, backend=backend, threads=2, **shape)  # type: ignore[arg-type]
        for backend in (isa, "reference")
    )
    assert_same(found, expected)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_keys_that_are_not_finite_are_refused(isa: str, bad: float) -> None:
    keys_GTD = torch.randn(2, 70, 16)
    keys_GTD[1, 33, 5] = bad
    with pytest.raises(ValueError, match="keys hold NaN or infinity"):
        segmented_kmeans(keys_GTD, torch.zeros(2, 70, 16), clusters=4, backend=isa)
    with pytest.raises(ValueError, match="values hold NaN or infinity"):
        segmented_kmeans(torch.zeros(2, 70, 16), keys_GTD, clusters=4, backend=isa)


def test_errors_name_what_is_wrong(isa: str) -> None:
    keys_GTD = torch.randn(2, 30, 16)
    for values, options, message in (
        (keys_GTD, {"clusters": 0}, "clusters is 0"),
        (keys_GTD, {"segments": 0}, "segments is 0"),
        (keys_GTD, {"iterations": 0}, "iterations is 0"),
        (keys_GTD, {"final": "none"}, "final is 'none'"),
        (keys_GTD, {"seeding": "random"}, "seeding is 'random'"),
        (keys_GTD[:, 1:], {}, r"values \[2, 29, 16\]"),
    ):
        with pytest.raises(ValueError, match=message):
            segmented_kmeans(keys_GTD, values, **{"clusters": 4, "backend": isa, **options})  # type: ignore[arg-type]
