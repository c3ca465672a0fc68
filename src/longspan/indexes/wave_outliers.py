"""Tokens that the centroid of their cluster does not speak for, as clusters of their own.

Beyond RetroInfer. A mean of 16 keys hides one that lies apart from the others, so that a query that
looks for it ranks the cluster low. In a cluster of its own a token's score is exact. (Groups of
clusters hide it again, until its group is opened.)
"""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING

import torch

from longspan_kernels.types import Clusters

if TYPE_CHECKING:
    from torch import Tensor

FIELDS = tuple(field.name for field in fields(Clusters))


def set_apart(
    found: Clusters, keys_GTD: Tensor, values_GTD: Tensor, segments: int, outliers: int
) -> Clusters:
    """The clusters of `segments` segments without `outliers` of the tokens of each segment, which
    become clusters behind the others of their segment: those whose leaving takes most off the
    squared distances of keys to centroids.
    """
    tokens, clusters = keys_GTD.shape[1], found.size_GC.shape[1]
    parts = []
    for segment in range(segments):
        of_tokens, of_clusters = (
            slice(segment * count // segments, (segment + 1) * count // segments)
            for count in (tokens, clusters)
        )
        part = Clusters(
            **{
                name: getattr(found, name)[:, of_tokens if name == "order_GT" else of_clusters]
                for name in FIELDS
            }
        )
        parts.append(_split(part, keys_GTD, values_GTD, outliers))
    return Clusters(
        **{name: torch.cat([getattr(part, name) for part in parts], dim=1) for name in FIELDS}
    )


def _split(part: Clusters, keys_GTD: Tensor, values_GTD: Tensor, outliers: int) -> Clusters:
    """One segment, with keys and values of the whole stretch."""
    owner_GT, size_GC, order_GT = _owners(part), part.size_GC, part.order_GT
    off_GTD = _rows(keys_GTD, order_GT).float() - _rows(part.centroids_GCD, owner_GT)
    square_GT = off_GTD.square().sum(-1)
    size_GT = size_GC.gather(1, owner_GT)
    gain_GT = square_GT * size_GT / (size_GT - 1).clamp(min=1)
    out_GO = gain_GT.topk(outliers, dim=1).indices.sort(dim=1).values
    stays_GT = torch.ones_like(owner_GT, dtype=torch.bool).scatter_(1, out_GO, False)
    rest_GT = order_GT[stays_GT].view(len(order_GT), -1)
    of_GO, order_GO = owner_GT.gather(1, out_GO), order_GT.gather(1, out_GO)
    values_GOD = _rows(values_GTD, order_GO).float()

    ones_GO = torch.ones_like(of_GO, dtype=torch.int32)
    left_GC = size_GC - _summed(ones_GO, of_GO, size_GC)
    divisor_GC = left_GC.clamp(min=1)
    shift_GCD = _summed(_rows(off_GTD, out_GO), of_GO, part.centroids_GCD) / divisor_GC[..., None]
    off_GOD = values_GOD - _rows(part.values_GCD, of_GO)
    values_GCD = part.values_GCD - (
        _summed(off_GOD, of_GO, part.values_GCD) / divisor_GC[..., None]
    )
    # about the centroid of the rest: a difference of large sums would be rounding
    left_GT = (off_GTD + _rows(shift_GCD, owner_GT)).square().sum(-1) * stays_GT
    square_GC = _summed(left_GT, owner_GT, part.spread_GC)
    spread_GC = square_GC / (divisor_GC * keys_GTD.shape[2])
    empty_GC = left_GC == 0

    size_GC = torch.cat([left_GC, ones_GO], dim=1)
    return Clusters(
        torch.cat([rest_GT, order_GO], dim=1),
        (part.start_GC[:, :1] + size_GC.cumsum(1) - size_GC).int(),
        size_GC,
        torch.cat([part.centroids_GCD - shift_GCD, _rows(keys_GTD, order_GO).float()], dim=1),
        torch.cat([values_GCD.masked_fill(empty_GC[..., None], 0.0), values_GOD], dim=1),
        torch.cat([spread_GC, ones_GO * 0.0], dim=1),
    )


def _owners(part: Clusters) -> Tensor:
    """int64 [G, T]: the cluster of each token, in their order."""
    groups, clusters = part.size_GC.shape
    number_C = torch.arange(clusters, device=part.size_GC.device)
    owner_N = number_C.repeat(groups).repeat_interleave(
        part.size_GC.flatten(), output_size=part.order_GT.numel()
    )
    return owner_N.view_as(part.order_GT)


def _rows(rows_GND: Tensor, at_GK: Tensor) -> Tensor:
    return rows_GND.gather(1, at_GK[..., None].expand(-1, -1, rows_GND.shape[2]))


def _summed(parts_GO: Tensor, at_GO: Tensor, like_GC: Tensor) -> Tensor:
    """What goes to one cluster added up, in shape and type of `like_GC`."""
    if parts_GO.ndim == 3:
        at_GO = at_GO[..., None].expand_as(parts_GO)
    return torch.zeros_like(like_GC).scatter_add_(1, at_GO, parts_GO)
