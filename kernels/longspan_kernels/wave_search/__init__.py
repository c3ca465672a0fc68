"""The operation `wave_search`; see README.md for the maths."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from longspan_kernels.checks import check_per_entry, check_runs, check_softcap
from longspan_kernels.dispatch import path
from longspan_kernels.on_gpu import triton_serves
from longspan_kernels.wave_search import cpu, reference

if TYPE_CHECKING:
    from torch import Tensor

    from longspan_kernels.dispatch import Backend
    from longspan_kernels.types import Runs, WaveHits

__all__ = ["wave_search"]


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
    most_2G: Tensor | None = None,
    backend: Backend = "auto",
    threads: int | None = None,
) -> WaveHits:
    """The `retrieve` best clusters of each KV head for its group of query heads, best first, and
    the `estimate` next ones, in no order that may be relied on.

    Every query head has one unit of vote, its softmax over the scores of all non-empty centroids
    (plus `bias_GC`), times `weight_H`; the votes of a group are added, or the largest counts. All
    in float32. `within`: runs of clusters [G, K], sizes given, of which alone is chosen; the others
    count as empty. `want_scores`: whether to hand back centroid scores. `most_2G` (int32): no more
    than so many of each list are wanted, row by row and known to the device alone; ids then come in
    no order. Raises ValueError naming what does not fit. RetroInfer, section 4.2.
    """
    reference.check(q_HD, centroids_GCD, retrieve, estimate)
    check_softcap(softcap)
    check_per_entry("size", size_GC, centroids_GCD)
    check_per_entry("bias", bias_GC, centroids_GCD)
    if vote not in ("sum", "max"):
        raise ValueError(f"vote is {vote!r}; it should be 'sum' or 'max'")
    if weight_H is not None and weight_H.shape != q_HD.shape[:1]:
        raise ValueError(
            f"weight has shape {list(weight_H.shape)}; it should be {list(q_HD.shape[:1])}"
        )
    reference.check_limits(most_2G, len(centroids_GCD))
    if within is not None:
        groups = len(centroids_GCD)
        check_runs(within, groups, groups)
        if within.size_NK is None:
            raise ValueError("within has no sizes; runs of clusters should have them")
    if triton_serves(backend, (q_HD, centroids_GCD), (size_GC, bias_GC, weight_H, most_2G)):
        from longspan_kernels.wave_search import triton

        return triton.wave_search(
            q_HD,
            centroids_GCD,
            size_GC,
            retrieve=retrieve,
            estimate=estimate,
            scale=scale,
            softcap=softcap,
            vote=vote,
            bias_GC=bias_GC,
            weight_H=weight_H,
            within=within,
            want_scores=want_scores,
            most_2G=most_2G,
        )
    isa = path(backend, cpu.obstacle(q_HD, centroids_GCD, size_GC, bias_GC))
    if isa is None:
        hits = reference.wave_search(
            q_HD,
            centroids_GCD,
            size_GC,
            retrieve=retrieve,
            estimate=estimate,
            scale=scale,
            softcap=softcap,
            vote=vote,
            bias_GC=bias_GC,
            weight_H=weight_H,
            within=within,
            want_scores=want_scores,
        )
    else:
        # cut by split, the ones that follow must be ranked as well
        ranked = (retrieve, estimate) if most_2G is None else (retrieve + estimate, 0)
        hits = cpu.wave_search(
            q_HD,
            centroids_GCD,
            size_GC,
            retrieve=ranked[0],
            estimate=ranked[1],
            scale=scale,
            softcap=softcap,
            vote=vote,
            bias_GC=bias_GC,
            weight_H=weight_H,
            within=within,
            want_scores=want_scores,
            threads=threads,
            isa=isa,
        )
    return hits if most_2G is None else reference.split(hits, retrieve, most_2G)
