"""What clusters weigh, in one launch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl

from longspan_kernels.jit import device_of, pow2

if TYPE_CHECKING:
    from torch import Tensor

BLOCK = 1024
"""Clusters of a program."""


@triton.jit
def weigh_clusters(
    log_size, spread, q, bias, unit, C, R, D, l_stride, s_stride, q_stride,
    BLOCK_R: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """A block of the clusters of one KV head, whose R query heads say how far scores spread."""
    group = tl.program_id(1).to(tl.int64)
    r, d = tl.arange(0, BLOCK_R), tl.arange(0, BLOCK_D)
    inside = (r < R)[:, None] & (d < D)[None, :]
    q_RD = tl.load(q + (group * R + r)[:, None] * q_stride + d[None, :], inside, 0.0)
    q_RD = q_RD.to(tl.float32)
    square = tl.sum(tl.sum(q_RD * q_RD, 1), 0) * unit
    c = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    least = tl.load(log_size + group * l_stride + c, c < C, 0.0)
    variance = square * tl.load(spread + group * s_stride + c, c < C, 0.0)
    frozen = tl.sqrt(2 * least * variance) - least
    more = tl.where(variance <= 2 * least, 0.5 * variance, frozen)
    tl.store(bias + group * C + c, least + more, c < C)


def spread_bias(log_size_GC: Tensor, spread_GC: Tensor, q_HD: Tensor, scale: float) -> Tensor:
    """As the reference."""
    (groups, clusters), (heads, width) = spread_GC.shape, q_HD.shape
    bias_GC = torch.empty(groups, clusters, dtype=torch.float32, device=q_HD.device)
    a_group = heads // groups
    with device_of(q_HD):
        weigh_clusters[(triton.cdiv(clusters, BLOCK), groups)](
            log_size_GC, spread_GC, q_HD, bias_GC, scale**2 / a_group, clusters, a_group, width,
            log_size_GC.stride(0), spread_GC.stride(0), q_HD.stride(0),
            BLOCK_R=pow2(a_group), BLOCK_D=pow2(width, 16), BLOCK_C=BLOCK,
        )  # fmt: skip
    return bias_GC
