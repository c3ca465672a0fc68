"""What clusters begin with, in plain PyTorch: evenly spaced tokens, and tokens that lie apart."""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from torch import Tensor

Seeding = Literal["even", "mixed", "farthest"]
EVEN_SHARE: dict[Seeding, float] = {"even": 1.0, "mixed": 0.5, "farthest": 0.0}
"""Share of the seeds that are evenly spaced; the others lie apart."""
BATCH, POOL = 16, 64
"""Seeds that are chosen before all tokens meet them, and tokens they are chosen from."""


def even(tokens: int, clusters: int, device: torch.device) -> Tensor:
    """int64 [C]: tokens in the middle of equal stretches, floor((i + 1/2) tokens / clusters)."""
    return (2 * torch.arange(clusters, device=device) + 1) * tokens // (2 * clusters)


def alike(unit_GTD: Tensor, seed_GC: Tensor) -> Tensor:
    """float32 [G, T]: the largest cosine of each token with the seeds; infinity for seeds."""
    wide_GCD = seed_GC[..., None].expand(-1, -1, unit_GTD.shape[2])
    near_GT = (unit_GTD @ unit_GTD.gather(1, wide_GCD).mT).amax(-1)
    return near_GT.scatter(1, seed_GC, float("inf"))


def picked(near_GP: Tensor, alike_GPP: Tensor, count: int) -> Tensor:
    """int64 [G, count]: again and again the least like, those just chosen included."""
    found = []
    for _ in range(count):
        found.append(near_GP.argmin(1, keepdim=True))
        wide_G1P = found[-1][..., None].expand(-1, -1, alike_GPP.shape[2])
        near_GP = torch.maximum(near_GP, alike_GPP.gather(1, wide_G1P)[:, 0])
    return torch.cat(found, dim=1)


def farthest(unit_GTD: Tensor, near_GT: Tensor, count: int) -> Tensor:
    """int64 [G, count]: those of the POOL tokens least like any seed that are chosen."""
    pool_GP = near_GT.argsort(dim=1, stable=True)[:, :POOL]
    pool_GPD = unit_GTD.gather(1, pool_GP[..., None].expand(-1, -1, unit_GTD.shape[2]))
    alike_GPP = pool_GPD @ pool_GPD.mT
    alike_GPP.diagonal(dim1=1, dim2=2).fill_(float("inf"))
    return pool_GP.gather(1, picked(near_GT.gather(1, pool_GP), alike_GPP, count))


def apart(x_GTD: Tensor, clusters: int, even_share: float) -> Tensor:
    """float32 [G, C, D]: seeds of length 1, some evenly spaced, the others farthest first in
    batches.
    """
    unit_GTD = F.normalize(x_GTD, dim=-1)
    seed_C = even(x_GTD.shape[1], max(1, ceil(even_share * clusters)), x_GTD.device)
    seed_GC = seed_C.expand(len(x_GTD), -1)
    near_GT = alike(unit_GTD, seed_GC)
    while missing := clusters - seed_GC.shape[1]:
        more_GC = farthest(unit_GTD, near_GT, min(BATCH, missing))
        near_GT = torch.maximum(near_GT, alike(unit_GTD, more_GC))
        seed_GC = torch.cat([seed_GC, more_GC], dim=1)
    return unit_GTD.gather(1, seed_GC[..., None].expand(-1, -1, unit_GTD.shape[2]))


def seeds(x_GTD: Tensor, clusters: int, seeding: Seeding) -> Tensor:
    """float32 [G, C, D]: what the clusters of a segment begin with; with fewer tokens than clusters
    evenly spaced whatever `seeding` says.
    """
    tokens = x_GTD.shape[1]
    if seeding != "even" and clusters <= tokens:
        return apart(x_GTD, clusters, EVEN_SHARE[seeding])
    return x_GTD[:, even(tokens, clusters, x_GTD.device)]  # not normalised for the first round
