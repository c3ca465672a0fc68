"""Ranking clusters for a query, slow and obvious."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch

from longspan_kernels.dense_decode.reference import scores
from longspan_kernels.types import WaveHits

if TYPE_CHECKING:
    from torch import Tensor

    from longspan_kernels.types import Runs


def check(q_HD: Tensor, centroids_GCD: Tensor, retrieve: int, estimate: int) -> None:
    """ValueError naming the argument that cannot be served."""
    groups, clusters, _ = centroids_GCD.shape
    if q_HD.shape[-1] != centroids_GCD.shape[-1] or q_HD.shape[0] % groups:
        raise ValueError(
            f"q has shape {list(q_HD.shape)}; with centroids {list(centroids_GCD.shape)} it should"
            f" be [a multiple of {groups}, {centroids_GCD.shape[-1]}]"
        )
    if retrieve < 0 or estimate < 0 or not 0 < retrieve + estimate <= clusters:
        raise ValueError(
            f"retrieve={retrieve} and estimate={estimate} select {retrieve + estimate} clusters;"
            f" it should be 1 to {clusters}"
        )


def check_finite(q_HD: Tensor) -> None:
    """ValueError where a query is not finite."""
    if not torch.isfinite(q_HD).all():
        raise ValueError("q holds NaN or infinity; searching needs finite queries")


def covered(runs: Runs, entries: int) -> Tensor:
    """bool [N, entries]: what the runs cover."""
    assert runs.size_NK is not None
    live_NK = torch.arange(runs.start_NK.shape[1], device=runs.count_N.device)
    live_NK = (live_NK < runs.count_N[:, None]) & (runs.size_NK > 0)
    start_NK = torch.where(live_NK, runs.start_NK, 0).long()
    end_NK = start_NK + torch.where(live_NK, runs.size_NK, 0)
    edge_NE = torch.zeros(len(start_NK), entries + 1, dtype=torch.int32, device=start_NK.device)
    one_NK = live_NK.int()
    edge_NE.scatter_add_(1, start_NK, one_NK).scatter_add_(1, end_NK, -one_NK)
    return edge_NE[:, :-1].cumsum(1) > 0


def split(hits: WaveHits, retrieve: int, most_2G: Tensor) -> WaveHits:
    """The hits, best first, cut where each row's limits say: at most `most_2G[0]` of `retrieve`
    ids, and at most `most_2G[1]` of those that follow them.
    """
    ranked_GK = torch.cat([hits.retrieve_GK, hits.estimate_GK], dim=1)
    first_G = torch.minimum(hits.live_G, most_2G[0].clamp(max=retrieve))
    estimate = ranked_GK.shape[1] - retrieve
    second_G = torch.minimum(hits.live_G - first_G, most_2G[1].clamp(max=estimate))
    rank_GE = first_G[:, None] + torch.arange(estimate, device=ranked_GK.device)
    next_GE = ranked_GK.gather(1, rank_GE.clamp(max=ranked_GK.shape[1] - 1))
    counts = torch.stack([first_G, second_G]).int()
    return WaveHits(ranked_GK[:, :retrieve], next_GE, hits.live_G, hits.score_HC, counts)


def check_limits(most_2G: Tensor | None, groups: int) -> None:
    """ValueError where limits are given that are not two a KV head."""
    if most_2G is not None and (most_2G.shape != (2, groups) or most_2G.dtype != torch.int32):
        raise ValueError(
            f"most is {most_2G.dtype} {list(most_2G.shape)}; it should be torch.int32 [2, {groups}]"
        )


def wave_search(
    q_HD: Tensor,
    centroids_GCD: Tensor,
    size_GC: Tensor,
    *,
    retrieve: int,
    estimate: int,
    scale: float,
    softcap: float | None = None,
    vote: Literal["sum", "max"] = "sum",
    bias_GC: Tensor | None = None,
    weight_H: Tensor | None = None,
    within: Runs | None = None,
    want_scores: bool = True,
) -> WaveHits:
    """The `retrieve` best clusters of each KV head for its group of query heads, and the `estimate`
    next ones.

    Every query head has one unit of vote, its softmax over the scores of all non-empty centroids
    (plus `bias_GC`), times `weight_H`; the votes of a group are added, or the largest counts. All
    in float32. RetroInfer, section 4.2. Clusters outside of `within` count as empty.
    """
    check(q_HD, centroids_GCD, retrieve, estimate)
    check_finite(q_HD)
    if within is not None:
        size_GC = size_GC.where(covered(within, size_GC.shape[1]), 0)
    empty_G1C = (size_GC <= 0)[:, None]
    score_GRC = scores(q_HD, centroids_GCD, scale, softcap)
    score_GRC = score_GRC.masked_fill(empty_G1C, float("-inf"))
    biased_GRC = score_GRC if bias_GC is None else score_GRC + bias_GC.float()[:, None]
    share_GRC = torch.softmax(biased_GRC, dim=-1)
    if weight_H is not None:
        share_GRC = share_GRC * weight_H.float().reshape(*share_GRC.shape[:2], 1)
    vote_GC = share_GRC.sum(1) if vote == "sum" else share_GRC.amax(1)
    vote_GC = vote_GC.masked_fill(empty_G1C[:, 0], float("-inf"))
    ranked_GK = vote_GC.topk(retrieve + estimate, dim=-1).indices.int()
    live_G = (size_GC > 0).sum(1).clamp(max=retrieve + estimate).int()
    return WaveHits(
        ranked_GK[:, :retrieve],
        ranked_GK[:, retrieve:],
        live_G,
        score_GRC.flatten(0, 1) if want_scores else None,
    )
