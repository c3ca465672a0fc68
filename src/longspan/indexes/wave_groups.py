"""Groups of clusters: a coarse level, so that a search need not score every centroid.

The clusters of a segment are clustered once more, by their centroids, and numbered group by group,
so that a group is a run of clusters. Linear in the clusters.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

import torch

from longspan_kernels.segmented_kmeans import segmented_kmeans
from longspan_kernels.types import Runs

if TYPE_CHECKING:
    from torch import Tensor

    from longspan.indexes.wave_meta import Meta


@dataclass(frozen=True)
class Groups:
    """Groups of all segments, one after the other; N a KV head."""

    centroids_GND: Tensor
    """Means of the centroids, in their dtype."""
    first_GN: Tensor
    """int32: the first cluster of each group."""
    count_GN: Tensor
    """int32; 0 where a group is empty."""

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The tensors by name."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def extended(self, later: Groups, clusters: int) -> Groups:
        """These groups, which hold `clusters`, then `later`'s."""
        shifted = replace(later, first_GN=later.first_GN + clusters).tensors
        return Groups(
            **{name: torch.cat([mine, shifted[name]], 1) for name, mine in self.tensors.items()}
        )

    def runs(self, id_GK: Tensor, live_G: Tensor) -> Runs:
        """The clusters of the first `live_G` groups of each row."""
        id_GK = id_GK.long()
        return Runs(self.first_GN.gather(1, id_GK), self.count_GN.gather(1, id_GK), live_G)


def grouped(meta: Meta, segments: int, a_group: int, rounds: int) -> tuple[Meta, Groups]:
    """The clusters of `segments` segments in the order of their groups of about `a_group`, and the
    groups.
    """
    clusters = meta.size_GC.shape[1]
    rows_GCD = meta.centroids_GCD
    found = segmented_kmeans(
        rows_GCD,
        rows_GCD,
        clusters=max(segments, round(clusters / a_group)),
        segments=segments,
        iterations=rounds,
    )
    order_GC = found.order_GT
    wide_GCD = order_GC[..., None].expand_as(rows_GCD)
    ordered = replace(
        meta,
        centroids_GCD=rows_GCD.gather(1, wide_GCD),
        values_GCD=meta.values_GCD.gather(1, wide_GCD),
        spread_GC=meta.spread_GC.gather(1, order_GC),
        start_GC=meta.start_GC.gather(1, order_GC),
        size_GC=meta.size_GC.gather(1, order_GC),
    )
    coarse_GND = found.centroids_GCD.to(rows_GCD.dtype)
    return ordered, Groups(coarse_GND, found.start_GC, found.size_GC)
