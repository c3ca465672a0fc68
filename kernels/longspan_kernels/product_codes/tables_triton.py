"""Products of queries with centroids in Triton, from which scores are looked up."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl

from longspan_kernels.jit import pow2

if TYPE_CHECKING:
    from torch import Tensor

TABLE_BLOCK = 32
"""Centroids that a program takes."""


@triton.jit
def table_block(
    q, centroids, table, scale, P, C, E, R, q_stride, c_stride_g, c_stride_p, c_stride_c,
    BLOCK_R: tl.constexpr, BLOCK_E: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Scaled products of the queries of a group with a block of the centroids of a part."""
    part = tl.program_id(1) % P
    group = (tl.program_id(1) // P).to(tl.int64)
    c = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    e = tl.arange(0, BLOCK_E)
    c_at = group * c_stride_g + part * c_stride_p + c[:, None] * c_stride_c + e[None, :]
    c_CE = tl.load(centroids + c_at, (c < C)[:, None] & (e < E)[None, :], 0.0)
    for first in range(0, R, BLOCK_R):
        lane = first + tl.arange(0, BLOCK_R)
        q_at = (group * R + lane)[:, None] * q_stride + part * E + e[None, :]
        q_RE = tl.load(q + q_at, (lane < R)[:, None] & (e < E)[None, :], 0.0).to(tl.float32)
        z_RC = tl.dot(q_RE, tl.trans(c_CE), input_precision="ieee") * scale
        at = ((group * P + part) * R + lane)[:, None] * C + c[None, :]
        tl.store(table + at, z_RC, (lane < R)[:, None] & (c < C)[None, :])


def table_of(q_HD: Tensor, centroids_GPCE: Tensor, scale: float) -> Tensor:
    """float32 [G, P, R, C]: scaled products of the queries of a group with its centroids."""
    groups, parts, clusters, size = centroids_GPCE.shape
    a_group = len(q_HD) // groups
    shape = groups, parts, a_group, clusters
    table_GPRC = torch.empty(shape, dtype=torch.float32, device=q_HD.device)
    table_block[(triton.cdiv(clusters, TABLE_BLOCK), groups * parts)](
        q_HD, centroids_GPCE, table_GPRC, scale, parts, clusters, size, a_group,
        q_HD.stride(0), *centroids_GPCE.stride()[:3],
        BLOCK_R=min(pow2(a_group, 16), 32), BLOCK_E=pow2(size, 16), BLOCK_C=TABLE_BLOCK,
    )  # fmt: skip
    return table_GPRC
