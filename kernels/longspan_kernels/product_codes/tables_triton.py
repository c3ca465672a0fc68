"""Codes, and the tables from which a search looks up scores, in Triton."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl

from longspan_kernels.jit import device_of, pow2
from longspan_kernels.segmented_kmeans.triton import assign

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
    part = tl.program_id(0) % P  # of a dimension that does not end at 65,535
    group = (tl.program_id(0) // P).to(tl.int64)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
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
    table_block[(groups * parts, triton.cdiv(clusters, TABLE_BLOCK))](
        q_HD, centroids_GPCE, table_GPRC, scale, parts, clusters, size, a_group,
        q_HD.stride(0), *centroids_GPCE.stride()[:3],
        BLOCK_R=min(pow2(a_group, 16), 32), BLOCK_E=pow2(size, 16), BLOCK_C=TABLE_BLOCK,
    )  # fmt: skip
    return table_GPRC


def encode(keys_GTD: Tensor, centroids_GPCE: Tensor) -> Tensor:
    """As the reference, but where two centroids are as near but for rounding. The assignment is
    that of `segmented_kmeans`, a launch a part.
    """
    (groups, parts, clusters, size), tokens = centroids_GPCE.shape, keys_GTD.shape[1]
    mean_PGE = centroids_GPCE.mean(2).transpose(0, 1).contiguous()
    centred_PGCE = centroids_GPCE.transpose(0, 1) - mean_PGE[:, :, None]
    less_PGC = 0.5 * centred_PGCE.square().sum(-1)
    shape = parts, groups, tokens
    code_PGT = torch.empty(shape, dtype=torch.uint8, device=keys_GTD.device)
    each = (
        keys_GTD.split(size, dim=2), mean_PGE, centred_PGCE.contiguous(), less_PGC, code_PGT
    )  # fmt: skip
    with device_of(keys_GTD):
        for keys_GTE, mean_GE, centroids_GCE, less_GC, code_GT in zip(*each, strict=True):
            assign[(triton.cdiv(tokens, 32) * groups,)](
                keys_GTE, centroids_GCE, code_GT, tokens, clusters, size, 1,
                *keys_GTE.stride()[:2], mean_GE, less_GC.contiguous(),
                EVERYWHERE=False, LESS=True, BLOCK_T=32, BLOCK_C=64, BLOCK_D=pow2(size, 16),
            )  # fmt: skip
    return code_PGT.transpose(0, 1).contiguous()
