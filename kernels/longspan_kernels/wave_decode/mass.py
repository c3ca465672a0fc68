"""What clusters weigh before their tokens are read, and how wrong that may be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch

from longspan_kernels.on_gpu import triton_serves
from longspan_kernels.types import Runs

if TYPE_CHECKING:
    from torch import Tensor

    from longspan_kernels.dispatch import Backend

Vote = Literal["sum", "max", "mass"]
"""How a group's query heads rank clusters: by the `sum` or the largest (`max`) of their shares of
the softmax over centroids, or by the sum of shares of what clusters are estimated to weigh
(`mass`), their size and spread included."""

MOST_RAISED = 80.0
"""Whose exponential is still a number."""


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


def estimate_errors(
    mass_GRC: Tensor, bias_GC: Tensor, log_size_GC: Tensor, exact_lse_H: Tensor | None
) -> Tensor:
    """float32 [G, C]: by how much of a head's attention the estimate of a cluster is expected to
    err, for the head of the group that it matters most to.

    A head's share of the attention, what it attends exactly included, times the standard deviation
    of the weights of a cluster's keys relative to their mean: sqrt(f^2 - 1), f being what the
    spread multiplies the mean with, e^(bias - ln size), as of a log-normal distribution.
    """
    lse_GR = torch.logsumexp(mass_GRC, dim=-1)
    if exact_lse_H is not None:
        lse_GR = torch.logaddexp(lse_GR, exact_lse_H.reshape(lse_GR.shape))
    share_GC = torch.exp(mass_GRC - lse_GR[..., None]).amax(1)
    raised_GC = (2 * (bias_GC - log_size_GC)).clamp(max=MOST_RAISED)
    return share_GC * torch.expm1(raised_GC).clamp(min=0).sqrt()


def promoted(
    read: Runs,
    rest: Runs,
    score_HC: Tensor,
    bias_GC: Tensor,
    log_size_GC: Tensor,
    exact_lse_H: Tensor | None,
    tolerance: float,
    backend: Backend = "auto",
) -> tuple[Runs, Runs]:
    """The ids (int32) of clusters to read and of those to estimate once more: of the latter those
    whose estimate errs by at least `tolerance` (`estimate_errors`, of these scores and biases) are
    read, behind the others. Ids behind a row's count are not looked at. Waits for nothing.
    """
    ids = read.start_NK, read.count_N, rest.start_NK, rest.count_N
    if triton_serves(backend, (), (score_HC, bias_GC, log_size_GC, exact_lse_H, *ids)):
        from longspan_kernels.wave_decode import promote_triton

        return promote_triton.promoted(
            read, rest, score_HC, bias_GC, log_size_GC, exact_lse_H, tolerance
        )
    mass_GRC = log_masses(score_HC, bias_GC)
    error_GC = estimate_errors(mass_GRC, bias_GC, log_size_GC, exact_lse_H)
    live_GE = torch.arange(rest.start_NK.shape[1], device=bias_GC.device) < rest.count_N[:, None]
    id_GE = torch.where(live_GE, rest.start_NK, 0).long()
    wrong_GE = live_GE & (error_GC.gather(1, id_GE) >= tolerance)
    first_GK = torch.arange(read.start_NK.shape[1], device=bias_GC.device) < read.count_N[:, None]
    more_G = wrong_GE.sum(1, dtype=torch.int32)
    all_GK = torch.cat([read.start_NK, rest.start_NK], dim=1)
    return (
        Runs(_sorted(all_GK, torch.cat([first_GK, wrong_GE], dim=1)), None, read.count_N + more_G),
        Runs(_sorted(rest.start_NK, live_GE & ~wrong_GE), None, rest.count_N - more_G),
    )


def _sorted(id_GK: Tensor, wanted_GK: Tensor) -> Tensor:
    """Each row again, the wanted ids first, all in the order they had."""
    return id_GK.gather(1, wanted_GK.int().sort(dim=1, descending=True, stable=True).indices)
