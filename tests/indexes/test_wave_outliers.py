"""Outliers of a partition that is known."""

from __future__ import annotations

import pytest
import torch

from longspan.indexes.wave_outliers import set_apart
from longspan_kernels.segmented_kmeans import segmented_kmeans
from longspan_kernels.types import Clusters

KEY = 3
"""The coordinate in which hidden keys lie apart."""


def partition(segments: int) -> tuple[Clusters, torch.Tensor, torch.Tensor, torch.Tensor]:
    """250 clusters of 16 tokens, keys and values, and 50 hidden tokens, one in every fifth."""
    rng = torch.Generator().manual_seed(segments)
    keys_CKD = torch.randn(1, 250, 16, 8, generator=rng) + 20 * torch.randn(
        1, 250, 1, 8, generator=rng
    )
    values_CKD = torch.randn(1, 250, 16, 8, generator=rng)
    keys_CKD[:, ::5, 7, KEY] += 9
    order_GT = torch.cat(
        [
            part[torch.randperm(len(part), generator=rng)]
            for part in torch.arange(4000).chunk(segments)
        ]
    )[None]
    size_GC = torch.full((1, 250), 16, dtype=torch.int32)
    mean_GCD = keys_CKD.mean(2)
    found = Clusters(
        order_GT,
        (size_GC.cumsum(1) - size_GC).int(),
        size_GC,
        mean_GCD,
        values_CKD.mean(2),
        (keys_CKD - mean_GCD[:, :, None]).square().mean((2, 3)),
    )
    hidden = order_GT[0].view(250, 16)[::5, 7]
    wide_GTD = order_GT[..., None].expand(1, 4000, 8)
    keys_GTD, values_GTD = (
        torch.empty(1, 4000, 8).scatter_(1, wide_GTD, rows.flatten(1, 2))
        for rows in (keys_CKD, values_CKD)
    )
    return found, keys_GTD, values_GTD, hidden


def test_the_keys_that_their_means_hide_are_set_apart() -> None:
    for segments in (1, 2, 5):
        found, keys_GTD, values_GTD, hidden = partition(segments)
        apart = set_apart(found, keys_GTD, values_GTD, segments, 50 // segments)
        alone = apart.size_GC[0] == 1
        assert int(alone.sum()) == 50
        assert set(apart.order_GT[0, apart.start_GC[0, alone]].tolist()) == set(hidden.tolist())
        # behind the other clusters of their segment
        for part in alone.chunk(segments):
            assert part.tolist() == sorted(part.tolist())
        tokens_of = apart.order_GT[0].view(segments, -1).sort().values
        assert torch.equal(tokens_of.flatten(), torch.arange(4000))
        for c, (start, size) in enumerate(zip(apart.start_GC[0], apart.size_GC[0], strict=True)):
            keys_KD = keys_GTD[0, apart.order_GT[0, start : start + size]]
            torch.testing.assert_close(apart.centroids_GCD[0, c], keys_KD.mean(0))
            spread = keys_KD.var(0, correction=0).mean()
            torch.testing.assert_close(apart.spread_GC[0, c], spread, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("longer", [1, 1e2, 1e4])
def test_the_spread_of_the_rest_is_that_of_its_keys(longer: float) -> None:
    """However long the key was that left."""
    keys_GTD = torch.randn(1, 20, 128) + 10 * torch.randn(1, 1, 128)
    keys_GTD[:, 7] *= longer
    found = segmented_kmeans(keys_GTD, keys_GTD, clusters=1, iterations=1)
    apart = set_apart(found, keys_GTD, keys_GTD, 1, 1)
    rest_KD = keys_GTD[0, apart.order_GT[0, :19]].double()
    spread = rest_KD.var(0, correction=0).mean()
    torch.testing.assert_close(apart.spread_GC[0, 0].double(), spread, rtol=1e-3, atol=0)
    torch.testing.assert_close(
        apart.centroids_GCD[0, 0].double(), rest_KD.mean(0), rtol=1e-3, atol=1e-2
    )


def test_a_cluster_that_gives_up_all_its_tokens_is_empty() -> None:
    found, keys_GTD, values_GTD, _ = partition(1)
    apart = set_apart(found, keys_GTD, values_GTD, 1, 4000)
    assert apart.size_GC.tolist() == [[0] * 250 + [1] * 4000]
    assert apart.centroids_GCD.isfinite().all()
    assert not apart.values_GCD[:, :250].any()
    torch.testing.assert_close(
        apart.centroids_GCD[:, 250:], keys_GTD.gather(1, apart.order_GT[..., None].expand(1, -1, 8))
    )


def test_leaving_a_small_cluster_counts_for_more() -> None:
    # clusters of 2 and 60, a key of each 4 from its mean; alone, the other of the two has no spread
    keys_GTD = torch.zeros(1, 62, 4)
    keys_GTD[0, 0, 0], keys_GTD[0, 1, 0] = 3.9, -3.9
    keys_GTD[0, 2, 1] = 4 * 60 / 59
    size_GC = torch.tensor([[2, 60]], dtype=torch.int32)
    mean_GCD = torch.stack([keys_GTD[0, :2].mean(0), keys_GTD[0, 2:].mean(0)])[None]
    spread_GC = torch.tensor([[3.9**2 / 4, 16 * 60 / 59 / 60 / 4]])
    found = Clusters(
        torch.arange(62)[None], (size_GC.cumsum(1) - size_GC).int(), size_GC, mean_GCD,
        torch.zeros(1, 2, 4), spread_GC,
    )  # fmt: skip
    apart = set_apart(found, keys_GTD, keys_GTD, 1, 1)
    assert apart.size_GC.tolist() == [[1, 60, 1]]
    assert apart.spread_GC[0, 0] < 1e-6
