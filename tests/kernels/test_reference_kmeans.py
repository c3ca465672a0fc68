"""The reference clustering against the paper's steps, written out with loops, and its bounds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from longspan_kernels.segmented_kmeans import reference
from longspan_kernels.segmented_kmeans.reference import segmented_kmeans
from longspan_kernels.segmented_kmeans.reference_seeds import EVEN_SHARE, seeds

if TYPE_CHECKING:
    from longspan_kernels.types import Clusters


def tokens(count: int, groups: int = 2, size: int = 8, seed: int = 0) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    keys = torch.randn(groups, count, size, generator=rng) + 3
    return keys, torch.randn(groups, count, size, generator=rng)


def slow_labels(keys_TD: Tensor, clusters: int, segments: int, rounds: int) -> list[int]:
    """The labels of one head, token by token; everything divides."""
    n, per_segment = len(keys_TD) // segments, clusters // segments
    x_TD = keys_TD - keys_TD.mean(0)
    labels = []
    for s in range(segments):
        part = x_TD[s * n : (s + 1) * n]
        centroids = [part[int((i + 0.5) * n / per_segment)] for i in range(per_segment)]
        for last in [False] * (rounds - 1) + [True]:
            label = [max(range(per_segment), key=lambda c: float(x @ centroids[c])) for x in part]
            if last:
                labels += [c + s * per_segment for c in label]
                continue
            for c in range(per_segment):
                members = [x for x, own in zip(part, label, strict=True) if own == c]
                if members:
                    mean = torch.stack(members).mean(0)
                    centroids[c] = mean / mean.norm()
    return labels


def labels_of(found: Clusters) -> Tensor:
    label = torch.empty_like(found.order_GT)
    for g in range(len(label)):
        rank = torch.repeat_interleave(torch.arange(found.size_GC.shape[1]), found.size_GC[g])
        label[g, found.order_GT[g]] = rank
    return label


def test_it_follows_the_papers_steps() -> None:
    keys, values = tokens(96)
    found = segmented_kmeans(keys, values, clusters=12, segments=3, iterations=5)
    for g in range(2):
        assert labels_of(found)[g].tolist() == slow_labels(keys[g], 12, 3, 5)


def test_farthest_seeds_leave_no_key_far_from_all() -> None:
    x_GTD = tokens(600)[0] - 3
    unit_GTD = torch.nn.functional.normalize(x_GTD, dim=-1)
    worst = {}
    for seeding in EVEN_SHARE:
        seed_GCD = torch.nn.functional.normalize(seeds(x_GTD, 80, seeding), dim=-1)
        worst[seeding] = float((unit_GTD @ seed_GCD.mT).amax(-1).amin())
    assert worst["even"] < worst["mixed"] < worst["farthest"]


def check_partition(found: Clusters, keys: Tensor, values: Tensor) -> None:
    groups, count, _ = keys.shape
    torch.testing.assert_close(
        found.order_GT.sort(1).values, torch.arange(count).expand(groups, -1)
    )
    assert (found.size_GC.sum(1) == count).all()
    assert (found.start_GC == found.size_GC.cumsum(1) - found.size_GC).all()
    assert found.centroids_GCD.isfinite().all()
    for g in range(groups):
        for c, (start, size) in enumerate(
            zip(found.start_GC[g].tolist(), found.size_GC[g].tolist(), strict=True)
        ):
            members = found.order_GT[g, start : start + size]
            assert members.tolist() == sorted(members.tolist())
            if not size:
                assert not found.values_GCD[g, c].any()
                continue
            member_keys = keys[g, members].float()
            spread = member_keys.var(0, unbiased=False).mean()
            for left, right in (
                (found.centroids_GCD[g, c], member_keys.mean(0)),
                (found.values_GCD[g, c], values[g, members].float().mean(0)),
                (found.spread_GC[g, c], spread),
            ):
                torch.testing.assert_close(left, right, atol=1e-4, rtol=1e-4)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 150),
    st.integers(1, 40),
    st.integers(1, 6),
    st.integers(1, 4),
    st.sampled_from(["segment", "global"]),
    st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_every_token_is_in_one_cluster_and_summaries_are_its_means(
    count: int, clusters: int, segments: int, rounds: int, final: str, dtype: torch.dtype
) -> None:
    keys, values = (t.to(dtype) for t in tokens(count, seed=count))
    found = segmented_kmeans(
        keys, values, clusters=clusters, segments=segments, iterations=rounds, final=final
    )
    check_partition(found, keys, values)


def test_segments_do_not_mix_unless_the_final_assignment_is_global() -> None:
    keys, values = tokens(300)
    own = labels_of(segmented_kmeans(keys, values, clusters=20, segments=4))
    assert (own // 5 == torch.arange(300) // 75).all()
    mixed = labels_of(segmented_kmeans(keys, values, clusters=20, segments=4, final="global"))
    assert (mixed // 5 != torch.arange(300) // 75).any()


def test_blocks_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    keys, values = tokens(500)
    right = segmented_kmeans(keys, values, clusters=31, segments=2, final="global")
    monkeypatch.setattr(reference, "BLOCK", 100)
    found = segmented_kmeans(keys, values, clusters=31, segments=2, final="global")
    assert torch.equal(found.order_GT, right.order_GT)
    torch.testing.assert_close(found.centroids_GCD, right.centroids_GCD)


@pytest.mark.parametrize("keys", [
    torch.zeros(2, 40, 8), torch.ones(1, 40, 8), torch.randn(2, 40, 8) * 1e15,
    torch.randn(1, 1, 8), torch.randn(2, 3, 8).repeat(1, 20, 1),
])  # fmt: skip
def test_hard_data_still_gives_a_partition(keys: Tensor) -> None:
    found = segmented_kmeans(keys, torch.ones_like(keys), clusters=6, segments=2)
    assert (found.size_GC.sum(1) == keys.shape[1]).all()
    assert found.centroids_GCD.isfinite().all()
    assert found.spread_GC.isfinite().all()


def test_wrong_arguments_are_named() -> None:
    keys, values = tokens(20)
    for wrong in (float("nan"), float("inf")):
        bad = keys.clone()
        bad[1, 7, 3] = wrong
        with pytest.raises(ValueError, match="keys hold NaN or infinity"):
            segmented_kmeans(bad, values, clusters=2)
    with pytest.raises(ValueError, match="clusters is 0"):
        segmented_kmeans(keys, values, clusters=0)
    with pytest.raises(ValueError, match="iterations is 0"):
        segmented_kmeans(keys, values, clusters=1, iterations=0)
    with pytest.raises(ValueError, match="both should be"):
        segmented_kmeans(keys, values[:, :3], clusters=1)
    with pytest.raises(ValueError, match="both should be"):
        segmented_kmeans(keys[:, :0], values[:, :0], clusters=1)
