"""Clustering in Triton against the reference: interpreted on the CPU, run as it is on a GPU."""

from __future__ import annotations

from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import pytest
import torch
from triton_cases import DEVICE, DTYPES, moved

from longspan_kernels.segmented_kmeans import segmented_kmeans
from longspan_kernels.segmented_kmeans.reference import describe

if TYPE_CHECKING:
    from collections.abc import Iterator

    from longspan_kernels.types import Clusters

pytestmark = pytest.mark.skipif(not find_spec("triton"), reason="Triton is not installed")


def test_clustering_launches_on_the_device_of_the_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever is current: the layers of a large model lie on several."""
    from longspan_kernels.segmented_kmeans import describe_triton, seeds_triton
    from longspan_kernels.segmented_kmeans import triton as clustering

    launched, inside = [], []

    @contextmanager
    def here(tensor: torch.Tensor) -> Iterator[None]:
        inside.append(tensor)
        yield
        inside.pop()

    monkeypatch.setattr(clustering, "device_of", here)
    for module, name in (
        (clustering, "assign"),
        (clustering, "update"),
        (describe_triton, "describe"),
        (clustering, "centre"),
        *((seeds_triton, name) for name in ("space", "meet", "list_least", "pick")),
    ):
        monkeypatch.setattr(module, name, Noted(getattr(module, name), launched, inside))
    keys_GTD = torch.randn(1, 60, 16, device=DEVICE)
    options: dict[str, Any] = {"clusters": 6, "iterations": 2, "seeding": "mixed"}
    segmented_kmeans(keys_GTD, keys_GTD, backend="triton", **options)
    assert len(launched) >= 9
    assert all(launched)


class Noted:
    """A kernel that notes of each launch whether it was given a device."""

    def __init__(self, kernel: Any, launched: list[bool], inside: list[Any]) -> None:
        self.kernel, self.launched, self.inside = kernel, launched, inside

    def __getitem__(self, grid: Any) -> Any:
        self.launched.append(bool(self.inside))
        return self.kernel[grid]


def described(keys_GTD: torch.Tensor, values_GTD: torch.Tensor, found: Clusters) -> Clusters:
    """What the reference says of clusters with these members."""
    order_GT, size_GC = found.order_GT.cpu(), found.size_GC.cpu()
    number_GT = torch.stack([torch.arange(len(n)).repeat_interleave(n) for n in size_GC])
    label_GT = torch.zeros_like(order_GT).scatter(1, order_GT, number_GT)
    mean_G1D = keys_GTD.mean(1, keepdim=True, dtype=torch.float32)
    return describe(keys_GTD, values_GTD, mean_G1D, label_GT, size_GC.shape[1])


@pytest.mark.parametrize("dtype", [d for d in DTYPES if d is not torch.int8], ids=str)
@pytest.mark.parametrize("final", ["segment", "global"])
@pytest.mark.parametrize(
    ("tokens", "clusters", "segments", "width", "rounds"),
    [(7, 3, 2, 16, 4), (65, 80, 3, 96, 1), (200, 29, 3, 80, 3)],
)
def test_segmented_kmeans(
    dtype: torch.dtype,
    final: str,
    tokens: int,
    clusters: int,
    segments: int,
    width: int,
    rounds: int,
) -> None:
    lumps = torch.randint(0, 1 + tokens // 8, (2, tokens, 1)).expand(-1, -1, width)
    keys_GTD = (3 * torch.randn(2, 1 + tokens // 8, width) + 2).gather(1, lumps)
    keys_GTD = (keys_GTD + 0.05 * torch.randn(2, tokens, width)).to(dtype)
    shape = {"clusters": clusters, "segments": segments, "iterations": rounds, "final": final}
    shape["seeding"] = "mixed" if final == "global" else "even"
    there = moved(keys_GTD), moved(keys_GTD.flip(-1))
    found = segmented_kmeans(*there, **shape, backend="triton")  # type: ignore[arg-type]
    expected = segmented_kmeans(
        keys_GTD,
        keys_GTD.flip(-1),
        **shape,
        backend="reference",  # type: ignore[arg-type]
    )
    # Where one token seeds several clusters, rounding decides; so does that of 16-bit keys where
    # clusters share what is nearly one token. What is said of the clusters is right either way.
    exactly = clusters <= tokens and dtype == torch.float32
    told = described(keys_GTD, keys_GTD.flip(-1), found)
    for name in ("size_GC", "centroids_GCD", "values_GCD", "spread_GC"):
        mine, own = getattr(found, name).cpu(), getattr(told, name)
        assert mine.isfinite().all(), name
        torch.testing.assert_close(mine, own, rtol=1e-4, atol=1e-4)
        if exactly:
            torch.testing.assert_close(mine, getattr(expected, name), rtol=1e-4, atol=1e-4)
    spreads = [(each.spread_GC.cpu() * each.size_GC.cpu()).sum() for each in (found, expected)]
    assert clusters > tokens or spreads[0] < 1.1 * spreads[1] + 1e-4
    assert found.size_GC.sum(1).tolist() == [tokens, tokens]
    assert (found.order_GT.sort().values.cpu() == torch.arange(tokens)).all()


@pytest.mark.parametrize(
    ("tokens", "clusters", "segments", "seeding"),
    [(150, 90, 2, "mixed"), (200, 30, 1, "farthest"), (63, 7, 7, "mixed"), (40, 40, 1, "farthest")],
)
def test_seeds_that_lie_apart(
    monkeypatch: pytest.MonkeyPatch, tokens: int, clusters: int, segments: int, seeding: str
) -> None:
    """The same tokens as the reference's, a head after another, and segments read in stretches."""
    from longspan_kernels.segmented_kmeans import seeds_triton
    from longspan_kernels.segmented_kmeans import triton as clustering

    monkeypatch.setattr(clustering, "HELD", 1)
    monkeypatch.setattr(seeds_triton, "READ", 128)
    keys_GTD = torch.randn(2, tokens, 24) + 2
    shape: dict[str, Any] = {"clusters": clusters, "segments": segments, "seeding": seeding}
    shape["iterations"] = 2
    given = keys_GTD, keys_GTD
    found = segmented_kmeans(*moved(list(given)), backend="triton", **shape)
    expected = segmented_kmeans(*given, backend="reference", **shape)
    assert torch.equal(found.size_GC.cpu(), expected.size_GC)
    assert torch.equal(found.order_GT.cpu(), expected.order_GT)
    half = segmented_kmeans(*moved([keys_GTD.half()] * 2), backend="triton", **shape)
    spreads = [(each.spread_GC.cpu() * each.size_GC.cpu()).sum() for each in (half, expected)]
    assert spreads[0] <= 1.02 * spreads[1] + 1e-3
