"""What clusters weigh before their tokens are read, and how many hold a share of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch

from longspan_kernels.on_gpu import triton_serves

if TYPE_CHECKING:
    from torch import Tensor

    from longspan_kernels.dispatch import Backend

Vote = Literal["sum", "max", "mass"]
"""How a group's query heads rank clusters: by the `sum` or the largest (`max`) of their shares of
the softmax over centroids, or by the sum of shares of what clusters are estimated to weigh
(`mass`), their size and spread included."""


def spread_bias(
    log_size_GC: Tensor,
    spread_GC: Tensor,
    q_HD: Tensor,
    scale: float,
    backend: Backend = "auto",
) -> Tensor:
    """float32 [G, C]: what added to a centroid's score gives the log of the mass of its cluster,
    were its keys drawn from an isotropic Gaussian of variance `spread_GC` a coordinate.

    ln size, by itself a lower bound (Jensen's inequality), and what scores of variance s^2 =
    scale^2 |q|^2 spread add, |q|^2 being the mean over the group: s^2 / 2 while s^2 <= 2 ln size,
    beyond it s sqrt(2 ln size) - ln size. So few draws never reach the tail that the mean of a
    log-normal lives on; their largest one decides (the random energy model's freezing, Derrida
    1981).
    """
    if triton_serves(backend, (q_HD,), (log_size_GC, spread_GC)):
        from longspan_kernels.wave_decode import mass_triton

        return mass_triton.spread_bias(log_size_GC, spread_GC, q_HD, scale)
    square_GR = q_HD.float().square().sum(-1).reshape(len(spread_GC), -1)
    variance_GC = scale**2 * square_GR.mean(1, keepdim=True) * spread_GC
    frozen_GC = (2 * log_size_GC * variance_GC).sqrt() - log_size_GC
    thawed_GC = variance_GC <= 2 * log_size_GC
    return log_size_GC + torch.where(thawed_GC, 0.5 * variance_GC, frozen_GC)


def log_masses(score_HC: Tensor, bias_GC: Tensor) -> Tensor:
    """float32 [G, R, C]: log of each cluster's estimated mass for each head of a group."""
    return score_HC.reshape(bias_GC.shape[0], -1, bias_GC.shape[1]) + bias_GC[:, None]


def unmet(mass_GRC: Tensor, exact_lse_H: Tensor | None) -> Tensor:
    """float32 [H]: the share of each head's mass that what it attends exactly leaves open."""
    lse_H = torch.logsumexp(mass_GRC, dim=-1).flatten()
    if exact_lse_H is None:
        return torch.ones_like(lse_H)
    return torch.sigmoid(lse_H - exact_lse_H)


def covering(
    mass_GRC: Tensor, ranked_GC: Tensor, exact_lse_H: Tensor | None, coverage: float
) -> Tensor:
    """int32 [G]: how many clusters, in rank order, it takes until every head of the group has
    `coverage` of its mass, what it attends exactly included.
    """
    open_GR = unmet(mass_GRC, exact_lse_H).reshape(mass_GRC.shape[:2])
    share_GRC = torch.softmax(mass_GRC, dim=-1) * open_GR[..., None]
    ranked_GRC = ranked_GC.long()[:, None].expand_as(share_GRC)
    gain_GRC = share_GRC.gather(2, ranked_GRC)
    # what is open before each cluster is read, summed from the far end so that 1 stays exact
    left_GRC = gain_GRC.flip(-1).cumsum(-1).flip(-1)
    return (left_GRC > 1 - coverage).any(dim=1).sum(-1).int()
