"""The union in plain torch, on any device; the definition."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

if TYPE_CHECKING:
    from torch import Tensor

BEYOND = 2**30
"""Of places and, with a first slot added, of slots; more than there can be."""


class United(NamedTuple):
    """What a group reads, and what that leaves of its clusters. All int32."""

    place_GK: Tensor
    """Places in the order of the clusters, ascending; BEYOND behind the last of a row."""
    count_G: Tensor
    left_GC: Tensor
    """Tokens of each cluster that are not read."""


def token_union(token_HK: Tensor, count_H: Tensor, place_GT: Tensor, size_GC: Tensor) -> United:
    """See `longspan_kernels.token_union`."""
    groups = len(place_GT)
    live_HK = torch.arange(token_HK.shape[1], device=token_HK.device) < count_H[:, None]
    token_GK = torch.where(live_HK, token_HK, 0).reshape(groups, -1).long()
    place_GK = place_GT.gather(1, token_GK)
    place_GK = torch.where(live_HK.reshape(groups, -1), place_GK, BEYOND).sort(dim=1).values
    again_GK = torch.zeros_like(place_GK, dtype=torch.bool)
    again_GK[:, 1:] = place_GK[:, 1:] == place_GK[:, :-1]
    place_GK = place_GK.masked_fill(again_GK, BEYOND).sort(dim=1).values
    read_GK = place_GK < BEYOND

    # the last cluster that begins at or before the place; empty ones begin where the next does
    end_GC = size_GC.cumsum(1).int()
    cluster_GK = torch.searchsorted(end_GC, place_GK, right=True).clamp(max=size_GC.shape[1] - 1)
    left_GC = size_GC.clone().scatter_add_(1, cluster_GK, -read_GK.int())
    return United(place_GK, read_GK.sum(1, dtype=torch.int32), left_GC)
