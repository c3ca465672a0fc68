"""Ranking clusters on the native kernel."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from longspan_kernels.dense_decode.cpu import numbers_obstacle, rows_obstacle
from longspan_kernels.dispatch import native, not_plain, thread_count
from longspan_kernels.types import WaveHits

if TYPE_CHECKING:
    from torch import Tensor

    from longspan_kernels.types import Runs


def obstacle(
    q_HD: Tensor, centroids_GCD: Tensor, size_GC: Tensor, bias_GC: Tensor | None
) -> str | None:
    """Why the kernel cannot take these; None if it can."""
    if size_GC.dtype != torch.int32:
        return f"sizes are {size_GC.dtype}"
    return rows_obstacle(q_HD, centroids_GCD) or numbers_obstacle(bias_GC) or not_plain((size_GC,))


def wave_search(
    q_HD: Tensor,
    centroids_GCD: Tensor,
    size_GC: Tensor,
    *,
    retrieve: int,
    estimate: int,
    scale: float,
    softcap: float | None,
    vote: str,
    bias_GC: Tensor | None,
    weight_H: Tensor | None,
    within: Runs | None,
    want_scores: bool,
    threads: int | None,
    isa: str,
) -> WaveHits:
    """As the reference, but that the estimated clusters come in ascending order."""
    groups, clusters, _ = centroids_GCD.shape
    hits = WaveHits(
        torch.empty(groups, retrieve, dtype=torch.int32),
        torch.empty(groups, estimate, dtype=torch.int32),
        torch.empty(groups, dtype=torch.int32),
        torch.empty(q_HD.shape[0], clusters) if want_scores else None,
    )
    native.wave_search(
        q_HD,
        centroids_GCD,
        size_GC.contiguous(),
        bias_GC,
        None if weight_H is None else weight_H.float().contiguous(),
        vote == "max",
        scale,
        softcap or 0.0,
        hits.retrieve_GK,
        hits.estimate_GK,
        hits.live_G,
        hits.score_HC,
        None if within is None else within.start_NK.contiguous(),
        None if within is None or within.size_NK is None else within.size_NK.contiguous(),
        None if within is None else within.count_N.contiguous(),
        thread_count(threads),
        isa,
    )
    return hits
