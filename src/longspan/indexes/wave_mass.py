"""What the clusters of an index weigh, and what stands for those that are not read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from longspan.types import Partial
from longspan_kernels.wave_decode.mass import spread_bias

if TYPE_CHECKING:
    from torch import Tensor

    from longspan.indexes.wave_meta import Meta
    from longspan_kernels.types import Runs


def gaussian_bias(meta: Meta, q_HD: Tensor, scale: float) -> Tensor:
    """`spread_bias` of these clusters, float32 [G, C]."""
    return spread_bias(meta.log_size_GC, meta.spread_GC, q_HD, scale)


def tail(meta: Meta, mass_GRC: Tensor, read_GC: Tensor) -> Partial:
    """Attention over the clusters that are not marked in `read_GC`: their estimated mass, and as
    their values the mean of their segment.
    """
    groups, heads, _ = mass_GRC.shape
    mass_GRC = mass_GRC.masked_fill(read_GC[:, None], float("-inf"))
    lse_GR = torch.logsumexp(mass_GRC, dim=-1)
    weight_GRC = torch.exp(mass_GRC - lse_GR[..., None]).nan_to_num(0.0)
    weight_GRS = torch.zeros(
        groups, heads, meta.segment_values_GSD.shape[1], device=mass_GRC.device
    ).index_add_(2, meta.segment_C, weight_GRC)
    out_GRD = weight_GRS @ meta.segment_values_GSD
    return Partial(out_GRD.flatten(0, 1), lse_GR.flatten())


def marked(ids: Runs, clusters: int) -> Tensor:
    """bool [G, C]: the clusters of a list."""
    live_GK = torch.arange(ids.start_NK.shape[1], device=ids.count_N.device) < ids.count_N[:, None]
    marked_GC = torch.zeros(len(live_GK), clusters + 1, dtype=torch.bool, device=live_GK.device)
    id_GK = torch.where(live_GK, ids.start_NK, clusters).long()  # the others share a place behind
    return marked_GC.scatter(1, id_GK, value=True)[:, :clusters]
