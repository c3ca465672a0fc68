"""The clusters of a stretch of keys, as the options of a wave index want them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from longspan.indexes.wave_groups import Groups, grouped
from longspan.indexes.wave_meta import Meta
from longspan_kernels.segmented_kmeans import segmented_kmeans

if TYPE_CHECKING:
    from torch import Tensor

    from longspan.indexes.base import Segment
    from longspan.indexes.wave_options import WaveOptions


def clustered(stretch: Segment, options: WaveOptions) -> tuple[Meta, Groups | None, Tensor]:
    """The clusters of segments of about `segment_tokens`, their groups where
    `clusters_per_group` asks for them, and order_GT (int64), the order in which tokens lie in them.
    """
    tokens = stretch.keys_GTD.shape[1]
    clusters = max(1, round(tokens / options.tokens_per_cluster))
    segments = min(clusters, max(1, round(tokens / options.segment_tokens)))
    found = segmented_kmeans(
        stretch.keys_GTD,
        stretch.values_GTD,
        clusters=clusters,
        segments=segments,
        iterations=options.kmeans_rounds,
        seeding=options.seeding,
        final=options.final_assignment,
    )
    dtype = stretch.keys_GTD.dtype if options.summaries == "model" else torch.float32
    meta, groups = Meta.of(found, stretch.first_slot, segments, dtype), None
    if options.clusters_per_group is not None:
        a_group = options.clusters_per_group
        meta, groups = grouped(meta, segments, a_group, options.kmeans_rounds)
    return meta, groups, found.order_GT
