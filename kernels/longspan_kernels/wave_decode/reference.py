"""A decode step over clusters, operation by operation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from longspan_kernels.dense_decode.reference import dense_decode
from longspan_kernels.merge.reference import merge
from longspan_kernels.sparse_decode.reference import sparse_decode
from longspan_kernels.types import Runs, WaveStep
from longspan_kernels.wave_decode.mass import promoted, spread_bias
from longspan_kernels.wave_search.reference import wave_search

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from longspan_kernels.types import Stretch
    from longspan_kernels.wave_decode.mass import Vote


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
    softcap: float | None,
    vote: Vote,
    spread_GC: Tensor | None,
    gaussian: bool,
    tolerance: float,
) -> WaveStep:
    """See the package."""
    how: dict[str, Any] = {"scale": scale, "softcap": softcap}
    partials = []
    for part in stored:
        for start, stop in steady:
            low, high = max(start - part.first, 0), stop - part.first
            if low < min(high, part.keys_GTD.shape[1]):
                zone = part.keys_GTD[:, low:high], part.values_GTD[:, low:high]
                partials.append(dense_decode(q_HD, *zone, **how))
    mass_bias_GC = bias_GC = log_size_GC = size_GC.clamp(min=1).float().log()
    if spread_GC is not None:
        mass_bias_GC = spread_bias(log_size_GC, spread_GC, q_HD, scale)
    hits = wave_search(
        q_HD,
        centroids_GCD,
        size_GC,
        retrieve=retrieve,
        estimate=estimate,
        vote="max" if vote == "max" else "sum",
        bias_GC=mass_bias_GC if vote == "mass" else None,
        **how,
    )
    read = Runs(hits.retrieve_GK, None, hits.live_G.clamp(max=retrieve))
    estimated = Runs(hits.estimate_GK, None, hits.live_G - read.count_N)
    if gaussian:
        bias_GC = mass_bias_GC
    if tolerance:
        assert hits.score_HC is not None
        exact_lse_H = merge(partials).lse if partials else None
        weights = hits.score_HC, mass_bias_GC, log_size_GC, exact_lse_H
        read, estimated = promoted(read, estimated, *weights, tolerance, "reference")
    id_GK = read.start_NK.long()
    retrieved = Runs(start_GC.gather(1, id_GK), size_GC.gather(1, id_GK), read.count_N)
    partials.append(
        sparse_decode(q_HD, centroids_GCD, means_GCD, estimated, bias_GT=bias_GC, **how)
    )
    for part in stored:
        rows = part.keys_GTD, part.values_GTD
        partials.append(sparse_decode(q_HD, *rows, retrieved, first=part.first, **how))
    return WaveStep(merge(partials), retrieved, estimated, bias_GC if gaussian else None)
