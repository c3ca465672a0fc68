"""A decode step over clusters, operation by operation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from longspan_kernels.dense_decode.reference import dense_decode
from longspan_kernels.merge.reference import merge
from longspan_kernels.sparse_decode.reference import sparse_decode
from longspan_kernels.types import Runs, WaveStep
from longspan_kernels.wave_search.reference import wave_search

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from longspan_kernels.types import Stretch


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
    vote: Literal["sum", "max"],
) -> WaveStep:
    """See the package."""
    how: dict[str, Any] = {"scale": scale, "softcap": softcap}
    hits = wave_search(
        q_HD, centroids_GCD, size_GC, retrieve=retrieve, estimate=estimate, vote=vote, **how
    )
    id_GK, count_G = hits.retrieve_GK.long(), hits.live_G.clamp(max=retrieve)
    retrieved = Runs(start_GC.gather(1, id_GK), size_GC.gather(1, id_GK), count_G)
    estimated = Runs(hits.estimate_GK, None, hits.live_G - count_G)
    bias_GC = size_GC.clamp(min=1).float().log()
    partials = [sparse_decode(q_HD, centroids_GCD, means_GCD, estimated, bias_GT=bias_GC, **how)]
    for part in stored:
        keys_GTD, values_GTD = part.keys_GTD, part.values_GTD
        partials.append(
            sparse_decode(q_HD, keys_GTD, values_GTD, retrieved, first=part.first, **how)
        )
        for start, stop in steady:
            low, high = max(start - part.first, 0), stop - part.first
            if low < min(high, keys_GTD.shape[1]):
                zone = keys_GTD[:, low:high], values_GTD[:, low:high]
                partials.append(dense_decode(q_HD, *zone, **how))
    return WaveStep(merge(partials), retrieved, estimated)
