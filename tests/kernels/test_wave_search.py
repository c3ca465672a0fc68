"""The native cluster search against the reference."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from kernel_cases import STORAGE

from longspan_kernels.types import Runs
from longspan_kernels.wave_search import wave_search
from longspan_kernels.wave_search.reference import wave_search as reference

if TYPE_CHECKING:
    from longspan_kernels.types import WaveHits


def assert_agree(found: WaveHits, expected: WaveHits) -> None:
    """The same scores and clusters; where votes tie to within rounding, either may be named."""
    torch.testing.assert_close(found.score_HC, expected.score_HC, rtol=1e-5, atol=2e-5)
    assert torch.equal(found.live_G, expected.live_G)
    groups, _retrieve = expected.retrieve_GK.shape
    share_HC = expected.score_HC.softmax(-1).nan_to_num(0.0)
    vote_GC = share_HC.reshape(groups, -1, share_HC.shape[-1]).sum(1)
    for g in range(groups):
        for mine, theirs in (
            (found.retrieve_GK[g], expected.retrieve_GK[g]),
            (found.estimate_GK[g], expected.estimate_GK[g]),
        ):
            assert len(set(mine.tolist())) == len(mine)
            if not torch.equal(mine.sort().values, theirs.sort().values):
                a, b = (vote_GC[g, ids.long()].sort().values for ids in (mine, theirs))
                torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-30)
        votes_K = vote_GC[g, found.retrieve_GK[g].long()]
        assert (votes_K[1:] <= votes_K[:-1] * (1 + 1e-4)).all(), "the retrieved are best first"
        assert not set(found.retrieve_GK[g].tolist()) & set(found.estimate_GK[g].tolist())


@pytest.mark.parametrize("dtype", STORAGE[:3], ids=str)
@pytest.mark.parametrize(
    ("clusters", "retrieve", "estimate"),
    [(1, 1, 0), (1, 0, 1), (7, 2, 5), (63, 0, 10), (64, 9, 0), (65, 3, 20), (5000, 90, 1160)],
)
def test_sizes(isa: str, dtype: torch.dtype, clusters: int, retrieve: int, estimate: int) -> None:
    for groups, heads_a_group, width in ((1, 1, 8), (2, 3, 80), (8, 4, 128), (1, 7, 256)):
        q_HD = torch.randn(groups * heads_a_group, width)
        centroids_GCD = torch.randn(groups, clusters, width).to(dtype)
        size_GC = torch.randint(1, 30, (groups, clusters)).int()
        budget = {"retrieve": retrieve, "estimate": estimate, "scale": width**-0.5}
        assert_agree(
            wave_search(q_HD, centroids_GCD, size_GC, **budget, backend=isa, threads=1),  # type: ignore[arg-type]
            reference(q_HD, centroids_GCD, size_GC, **budget),  # type: ignore[arg-type]
        )


def test_votes_with_everything(isa: str) -> None:
    q_HD, centroids_GCD = torch.randn(6, 32), torch.randn(2, 333, 32)
    size_GC = torch.randint(1, 9, (2, 333)).int()
    options = {"retrieve": 20, "estimate": 50, "scale": 0.3, "softcap": 2.0}
    bias_GC, weight_H = size_GC.float().log(), torch.rand(6)
    for vote in ("sum", "max"):
        extra = {"vote": vote, "bias_GC": bias_GC, "weight_H": weight_H, **options}
        found = wave_search(q_HD, centroids_GCD, size_GC, **extra, backend=isa)  # type: ignore[arg-type]
        expected = reference(q_HD, centroids_GCD, size_GC, **extra)  # type: ignore[arg-type]
        assert torch.equal(found.retrieve_GK, expected.retrieve_GK)
        assert torch.equal(found.estimate_GK.sort().values, expected.estimate_GK.sort().values)


def test_empty_clusters_come_last(isa: str) -> None:
    q_HD, centroids_GCD = torch.randn(4, 16), torch.randn(2, 50, 16)
    size_GC = torch.zeros(2, 50, dtype=torch.int32)
    size_GC[0, ::9] = 5  # six with members
    size_GC[1, 3] = 1
    found = wave_search(
        q_HD, centroids_GCD, size_GC, retrieve=4, estimate=6, scale=1.0, backend=isa
    )
    assert found.live_G.tolist() == [6, 1]
    for g, live in enumerate(found.live_G.tolist()):
        ids = torch.cat([found.retrieve_GK[g], found.estimate_GK[g]]).long()
        assert (size_GC[g, ids[:live]] > 0).all()
        assert (size_GC[g, ids[live:]] == 0).all()
        assert len(set(ids.tolist())) == 10
    assert torch.equal(found.score_HC.isneginf(), (size_GC == 0).repeat_interleave(2, 0))


@pytest.mark.parametrize("case", ["equal", "zeros", "huge", "all in one"])
def test_hard_data(isa: str, case: str) -> None:
    q_HD, centroids_GCD = torch.randn(4, 32), torch.randn(1, 3000, 32)
    if case in ("equal", "zeros"):
        centroids_GCD[:] = centroids_GCD[:, :1] * (case == "equal")
    else:
        centroids_GCD[:, 0 if case == "all in one" else slice(None)] *= 1e3
    size_GC = torch.ones(1, 3000, dtype=torch.int32)
    budget = {"retrieve": 100, "estimate": 600, "scale": 1.0, "threads": 1}
    found = wave_search(q_HD, centroids_GCD, size_GC, **budget, backend=isa)  # type: ignore[arg-type]
    ids = torch.cat([found.retrieve_GK[0], found.estimate_GK[0]])
    assert len(set(ids.tolist())) == 700
    expected = wave_search(q_HD, centroids_GCD, size_GC, **budget, backend="reference")  # type: ignore[arg-type]
    share_HC = expected.score_HC.softmax(-1)
    for mine, theirs in ((found.retrieve_GK, expected.retrieve_GK), (ids[None], None)):
        ids_K = mine[0].long()
        best = share_HC.sum(0).topk(len(ids_K)).values.sum()
        torch.testing.assert_close(share_HC.sum(0)[ids_K].sum(), best)
        assert theirs is None or mine.shape == theirs.shape


def test_threads_change_nothing(isa: str) -> None:
    q_HD, centroids_GCD = torch.randn(6, 64), torch.randn(3, 7000, 64)
    size_GC = torch.ones(3, 7000, dtype=torch.int32)
    one, two = (
        wave_search(
            q_HD,
            centroids_GCD,
            size_GC,
            retrieve=99,
            estimate=500,
            scale=0.1,
            backend=isa,
            threads=n,
        )
        for n in (1, 2)
    )
    kept = [(a, b) for a, b in zip(one, two, strict=True) if a is not None]
    assert len(kept) == 4
    assert all(torch.equal(a, b) for a, b in kept)


def test_only_clusters_of_the_runs_take_part(isa: str) -> None:
    q_HD, centroids_GCD = torch.randn(6, 32), torch.randn(3, 5000, 32)
    size_GC = torch.randint(0, 4, (3, 5000)).int()
    starts = torch.arange(0, 5000, 50)
    start_NK = torch.stack([starts[torch.randperm(100)[:60]] for _ in range(3)]).int()
    size_NK = torch.randint(0, 51, (3, 60)).int()
    within = Runs(start_NK, size_NK, torch.tensor([60, 0, 1], dtype=torch.int32))
    start_NK[1], size_NK[2, 1:] = -7, 10**6  # what lies beyond the counts is not looked at
    options = {"retrieve": 30, "estimate": 90, "scale": 0.2, "bias_GC": size_GC.float()}
    found, expected = (
        wave_search(q_HD, centroids_GCD, size_GC, within=within, backend=b, **options)  # type: ignore[arg-type]
        for b in (isa, "reference")
    )
    assert torch.equal(found.live_G, expected.live_G)
    assert 0 == int(found.live_G[1]) < int(found.live_G[2]) < 50
    torch.testing.assert_close(found.score_HC, expected.score_HC, rtol=1e-5, atol=2e-5)
    for g, live in enumerate(found.live_G.tolist()):
        ids, right = (
            torch.cat([hits.retrieve_GK[g], hits.estimate_GK[g]]) for hits in (found, expected)
        )
        assert set(ids[:live].tolist()) == set(right[:live].tolist())
        assert len(set(ids.tolist())) == 120
    quiet = wave_search(
        q_HD,
        centroids_GCD,
        size_GC,
        within=within,
        want_scores=False,
        backend=isa,
        **options,  # type: ignore[arg-type]
    )
    assert quiet.score_HC is None
    assert torch.equal(quiet.retrieve_GK, found.retrieve_GK)


def test_runs_of_clusters_that_are_not_there_are_refused(isa: str) -> None:
    q, c, s = torch.randn(4, 16), torch.randn(2, 9, 16), torch.ones(2, 9, dtype=torch.int32)
    one, two = torch.ones(2, 1, dtype=torch.int32), torch.ones(2, dtype=torch.int32)
    budget = {"retrieve": 1, "estimate": 0, "scale": 1.0, "backend": isa}
    for runs, message in (
        (Runs(8 * one, 2 * one, two), "a cluster that is not there"),
        (Runs(-one, one, two), "a cluster that is not there"),
        (Runs(one, one, 2 * two), "count of runs is out of range"),
        (Runs(one, None, two), "within has no sizes"),
        (Runs(one[:1], one[:1], two[:1]), "runs have shape"),
    ):
        with pytest.raises(ValueError, match=message):
            wave_search(q, c, s, within=runs, **budget)  # type: ignore[arg-type]


def test_errors_name_what_is_wrong(isa: str) -> None:
    q, c, s = torch.randn(4, 16), torch.randn(2, 9, 16), torch.ones(2, 9, dtype=torch.int32)
    bad_q = q.clone()
    bad_q[1, 3] = float("nan")
    for arguments, options, message in (
        ((q, c, s), {"retrieve": 8, "estimate": 2}, "select 10 clusters"),
        ((q, c, s), {"retrieve": 0, "estimate": 0}, "select 0 clusters"),
        ((q, c, s[:, 1:]), {}, r"size has shape \[2, 8\]"),
        ((q[:3], c, s), {}, r"q has shape \[3, 16\]"),
        ((bad_q, c, s), {}, "q holds NaN or infinity"),
        ((q, c, s), {"vote": "mean"}, "vote is 'mean'"),
        ((q, c, s), {"weight_H": torch.ones(3)}, r"weight has shape \[3\]"),
        ((q, c, s), {"bias_GC": torch.ones(9)}, r"bias has shape \[9\]"),
        ((q, c, s), {"softcap": -1.0}, "softcap is -1.0"),
    ):
        settings = {"retrieve": 2, "estimate": 3, "scale": 1.0, "backend": isa, **options}
        with pytest.raises(ValueError, match=message):
            wave_search(*arguments, **settings)  # type: ignore[arg-type]
