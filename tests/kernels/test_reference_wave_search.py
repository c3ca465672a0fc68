"""The reference cluster search against the definition of the vote, head by head."""

from __future__ import annotations

import pytest
import torch

from longspan_kernels.wave_search.reference import wave_search


@pytest.mark.parametrize("vote", ["sum", "max"])
@pytest.mark.parametrize(("groups", "heads"), [(1, 3), (2, 4), (3, 1)])
def test_ranks_are_the_votes(groups: int, heads: int, vote: str) -> None:
    torch.manual_seed(groups)
    q_HD, centroids_GCD = torch.randn(groups * heads, 8), torch.randn(groups, 50, 8)
    size_GC = torch.randint(0, 3, (groups, 50), dtype=torch.int32)
    bias_GC, weight_H = torch.randn(groups, 50), torch.rand(groups * heads)
    found = wave_search(
        q_HD, centroids_GCD, size_GC, retrieve=5, estimate=45, scale=0.4, softcap=2.0,
        vote=vote, bias_GC=bias_GC, weight_H=weight_H,
    )  # fmt: skip
    for g in range(groups):
        votes = torch.zeros(heads, 50)
        for r in range(heads):
            h = g * heads + r
            score = 2 * torch.tanh(centroids_GCD[g] @ q_HD[h] * 0.4 / 2)
            score[size_GC[g] == 0] = -float("inf")
            torch.testing.assert_close(found.score_HC[h], score)
            votes[r] = torch.softmax(score + bias_GC[g], 0) * weight_H[h]
        total = votes.sum(0) if vote == "sum" else votes.amax(0)
        live = int((size_GC[g] > 0).sum())
        assert int(found.live_G[g]) == live
        right = [c for c in total.argsort(descending=True).tolist() if size_GC[g, c] > 0]
        ids = [*found.retrieve_GK[g].tolist(), *found.estimate_GK[g].tolist()]
        assert ids[:live] == right
        assert sorted(ids) == list(range(50))


def test_fewer_clusters_with_tokens_than_asked_for() -> None:
    size_GC = torch.tensor([[0, 4, 0, 1]], dtype=torch.int32)
    found = wave_search(
        torch.randn(2, 8), torch.randn(1, 4, 8), size_GC, retrieve=2, estimate=1, scale=1.0
    )
    assert found.live_G.tolist() == [2]
    assert sorted(found.retrieve_GK[0].tolist()) == [1, 3]
    none = wave_search(
        torch.randn(2, 8), torch.randn(1, 4, 8), 0 * size_GC, retrieve=1, estimate=0, scale=1.0
    )
    assert none.live_G.tolist() == [0]


def test_wrong_arguments_are_named() -> None:
    q_HD, centroids_GCD, size_GC = torch.randn(4, 8), torch.randn(2, 9, 8), torch.ones(2, 9)
    for retrieve, estimate in ((0, 0), (10, 0), (5, 5), (-1, 3)):
        with pytest.raises(ValueError, match=f"retrieve={retrieve} and estimate={estimate}"):
            wave_search(
                q_HD, centroids_GCD, size_GC, retrieve=retrieve, estimate=estimate, scale=1.0
            )
    with pytest.raises(ValueError, match="q has shape"):
        wave_search(q_HD[:3], centroids_GCD, size_GC, retrieve=1, estimate=0, scale=1.0)
    with pytest.raises(ValueError, match="NaN"):
        wave_search(q_HD / 0, centroids_GCD, size_GC, retrieve=1, estimate=0, scale=1.0)
