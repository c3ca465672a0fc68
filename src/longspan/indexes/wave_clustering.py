"""The clusters of a stretch of keys, as the options of a wave index want them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

from longspan.indexes.wave_groups import Groups, grouped
from longspan.indexes.wave_meta import Meta
from longspan.indexes.wave_outliers import set_apart
from longspan_kernels.segmented_kmeans import segmented_kmeans

if TYPE_CHECKING:
    from torch import Tensor

    from longspan.indexes.base import Segment
    from longspan.indexes.wave_options import WaveOptions


class Counts(NamedTuple):
    """Of a stretch of tokens."""

    clusters: int
    """Without outliers."""
    segments: int
    outliers: int
    """Of each segment."""

    @property
    def total(self) -> int:
        """Clusters with the outliers, which are clusters too."""
        return self.clusters + self.segments * self.outliers


def counts(tokens: int, options: WaveOptions) -> Counts:
    """What a stretch of so many tokens is cut into."""
    clusters = max(1, round(tokens / options.tokens_per_cluster))
    segments = min(clusters, max(1, round(tokens / options.segment_tokens)))
    outliers = min(round(options.outlier_budget * tokens / segments), tokens // segments)
    return Counts(clusters, segments, outliers)


def clustered(stretch: Segment, options: WaveOptions) -> tuple[Meta, Groups | None, Tensor]:
    """The clusters of segments of about `segment_tokens`, their groups where
    `clusters_per_group` asks for them, and order_GT (int64), the order in which tokens lie in them.
    """
    keys_GTD, values_GTD = stretch.keys_GTD, stretch.values_GTD
    clusters, segments, outliers = counts(keys_GTD.shape[1], options)
    found = segmented_kmeans(
        keys_GTD,
        values_GTD,
        clusters=clusters,
        segments=segments,
        iterations=options.kmeans_rounds,
        seeding=options.seeding,
        final=options.final_assignment,
    )
    if outliers:
        found = set_apart(found, keys_GTD, values_GTD, segments, outliers)
    dtype = keys_GTD.dtype if options.summaries == "model" else torch.float32
    meta, groups = Meta.of(found, stretch.first_slot, segments, dtype), None
    if options.clusters_per_group is not None:
        a_group = options.clusters_per_group
        meta, groups = grouped(meta, segments, a_group, options.kmeans_rounds)
    return meta, groups, found.order_GT
