"""The operation `wave_decode`; see README.md for the maths."""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

from longspan_kernels.checks import check_per_entry, check_rows, check_softcap
from longspan_kernels.dispatch import path
from longspan_kernels.wave_decode import cpu, reference
from longspan_kernels.wave_decode.mass import Vote
from longspan_kernels.wave_search.reference import check

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from longspan_kernels.dispatch import Backend
    from longspan_kernels.types import Stretch, WaveStep

__all__ = ["wave_decode"]


def wave_decode(
    q_HD: Tensor,
    centroids_GCD: Tensor,
    means_GCD: Tensor,
    start_GC: Tensor,
    size_GC: Tensor,
    stored: Sequence[Stretch],
    *,
    indexed: tuple[int, int],
    steady: Sequence[tuple[int, int]],
    retrieve: int,
    estimate: int,
    scale: float,
    softcap: float | None = None,
    vote: Vote = "sum",
    spread_GC: Tensor | None = None,
    gaussian: bool = False,
    tolerance: float = 0.0,
    backend: Backend = "auto",
    threads: int | None = None,
) -> WaveStep:
    """One decode step over clusters: `wave_search`, exact attention to the slots of the retrieved
    clusters and to the `steady` slot ranges, attention to the means of the estimated clusters with
    a bias of ln(size), all merged.

    Cluster c covers the slots [start, start + size) of `stored`, all within `indexed`, which no
    steady range touches; int32. `spread_GC` (float32): the variance of a key's coordinate within
    each cluster, which says what a cluster weighs: `vote="mass"` ranks clusters by it, `gaussian`
    estimates them by it.
    `tolerance`, where it is not 0: of the `estimate` next clusters those are retrieved as well
    whose estimate is expected to err by at least this share of a head's attention, steady ranges
    included.
    Raises ValueError naming what does not fit. RetroInfer, sections 4.1 and 4.2; mass.py.
    """
    if not 0 <= tolerance <= 1:
        raise ValueError(f"tolerance is {tolerance}; it should be in [0, 1]")
    check(q_HD, centroids_GCD, retrieve, estimate)
    check_rows(q_HD, centroids_GCD, means_GCD)
    check_softcap(softcap)
    check_per_entry("start", start_GC, centroids_GCD)
    check_per_entry("size", size_GC, centroids_GCD)
    check_per_entry("spread", spread_GC, centroids_GCD)
    if vote not in get_args(Vote):
        raise ValueError(f"vote is {vote!r}; right is one of {', '.join(get_args(Vote))}")
    weighs = gaussian or tolerance > 0 or vote == "mass"
    if spread_GC is None and weighs:
        raise ValueError(
            f"spread is None with vote={vote}, gaussian={gaussian} and tolerance={tolerance}; it"
            f" should be {list(centroids_GCD.shape[:2])}, the variance of a key's coordinate in"
            " each cluster"
        )
    for part in stored:
        check_rows(q_HD, part.keys_GTD, part.values_GTD)
        if len(part.keys_GTD) != len(centroids_GCD):
            raise ValueError(
                f"stored keys have shape {list(part.keys_GTD.shape)}; centroids"
                f" {list(centroids_GCD.shape)} have another number of KV heads"
            )
    obstacle = cpu.obstacle(q_HD, centroids_GCD, means_GCD, start_GC, size_GC, stored, spread_GC)
    isa = path(backend, obstacle)
    serve = reference.wave_decode if isa is None else cpu.on(isa, threads)
    return serve(
        q_HD,
        centroids_GCD,
        means_GCD,
        start_GC,
        size_GC,
        stored,
        indexed=indexed,
        steady=steady,
        retrieve=retrieve,
        estimate=estimate,
        scale=scale,
        softcap=softcap,
        vote=vote,
        spread_GC=spread_GC if weighs else None,
        gaussian=gaussian,
        tolerance=tolerance,
    )
