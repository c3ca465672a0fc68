"""Clustering on the native kernel."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from longspan_kernels.dispatch import native, thread_count
from longspan_kernels.segmented_kmeans.reference_seeds import EVEN_SHARE
from longspan_kernels.types import Clusters

if TYPE_CHECKING:
    from torch import Tensor

    from longspan_kernels.segmented_kmeans.reference_seeds import Seeding


def segmented_kmeans(
    keys_GTD: Tensor,
    values_GTD: Tensor,
    *,
    clusters: int,
    segments: int,
    iterations: int,
    seeding: Seeding,
    final: str,
    threads: int | None,
    isa: str,
) -> Clusters:
    """As the reference, but for the rounding of sums."""
    groups, tokens, width = keys_GTD.shape
    found = Clusters(
        order_GT=torch.empty(groups, tokens, dtype=torch.int64),
        start_GC=torch.empty(groups, clusters, dtype=torch.int32),
        size_GC=torch.empty(groups, clusters, dtype=torch.int32),
        centroids_GCD=torch.empty(groups, clusters, width),
        values_GCD=torch.empty(groups, clusters, width),
        spread_GC=torch.empty(groups, clusters),
    )
    native.segmented_kmeans(
        keys_GTD,
        values_GTD,
        min(segments, clusters, tokens),
        iterations,
        EVEN_SHARE[seeding],
        final == "global",
        found.order_GT,
        found.start_GC,
        found.size_GC,
        found.centroids_GCD,
        found.values_GCD,
        found.spread_GC,
        thread_count(threads),
        isa,
    )
    return found
