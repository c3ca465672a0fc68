"""What the clusters of a finished clustering are: order, sizes, means and spread, in Triton."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl

from longspan_kernels.jit import pow2
from longspan_kernels.segmented_kmeans.reference import counts
from longspan_kernels.types import Clusters

if TYPE_CHECKING:
    from torch import Tensor


@triton.jit
def some_members(order, at, first, members, BLOCK_T: tl.constexpr):
    """The tokens of a cluster from its `first` one on, and which of them there are."""
    place = first + tl.arange(0, BLOCK_T)
    live = place < members
    return tl.load(order + at + place, live, 0), live


@triton.jit
def rows_of(x, group, token, live, d, D, stride_g, stride_t):
    """Of these tokens, float32."""
    mask = live[:, None] & (d < D)[None, :]
    at = group * stride_g + token[:, None] * stride_t + d[None, :]
    return tl.load(x + at, mask, 0.0).to(tl.float32)


@triton.jit
def describe(
    keys, values, mean, order, start, size, centroids, means, spread, T, C, D,
    k_stride_g, k_stride_t, v_stride_g, v_stride_t,
    BLOCK_T: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Plain means of the keys and values of one cluster, and the spread of its keys."""
    c = tl.program_id(0)
    group = tl.program_id(1).to(tl.int64)
    d = tl.arange(0, BLOCK_D)
    mean_D = tl.load(mean + group * D + d, d < D, 0.0)
    at = group * T + tl.load(start + group * C + c)
    members = tl.load(size + group * C + c)
    sum_D = tl.zeros((BLOCK_D,), tl.float32)
    value_D = tl.zeros((BLOCK_D,), tl.float32)
    for first in range(0, members, BLOCK_T):
        token, live = some_members(order, at, first, members, BLOCK_T)
        x_TD = rows_of(keys, group, token, live, d, D, k_stride_g, k_stride_t) - mean_D[None, :]
        sum_D += tl.sum(tl.where(live[:, None], x_TD, 0.0), 0)
        value_D += tl.sum(rows_of(values, group, token, live, d, D, v_stride_g, v_stride_t), 0)
    share = 1.0 / tl.maximum(members, 1).to(tl.float32)
    centred_D = sum_D * share
    square = tl.zeros((), tl.float32)  # about the centroid: a difference of large sums is rounding
    for first in range(0, members, BLOCK_T):
        token, live = some_members(order, at, first, members, BLOCK_T)
        x_TD = rows_of(keys, group, token, live, d, D, k_stride_g, k_stride_t) - mean_D[None, :]
        x_TD = tl.where(live[:, None], x_TD - centred_D[None, :], 0.0)
        square += tl.sum(tl.sum(x_TD * x_TD, 1), 0)
    row = group * C + c
    tl.store(centroids + row * D + d, centred_D + mean_D, d < D)
    tl.store(means + row * D + d, value_D * share, d < D)
    tl.store(spread + row, square * share / D)


def described(
    keys_GTD: Tensor, values_GTD: Tensor, mean_GD: Tensor, label_GT: Tensor, clusters: int
) -> Clusters:
    """The clusters that the labels define."""
    groups, tokens, width = keys_GTD.shape
    floats = partial(torch.empty, dtype=torch.float32, device=keys_GTD.device)
    size_GC = counts(label_GT.long(), clusters)
    found = Clusters(
        order_GT=label_GT.argsort(dim=1, stable=True),
        start_GC=(size_GC.cumsum(1) - size_GC).int(),
        size_GC=size_GC.int(),
        centroids_GCD=floats(groups, clusters, width),
        values_GCD=floats(groups, clusters, width),
        spread_GC=floats(groups, clusters),
    )
    describe[(clusters, groups)](
        keys_GTD, values_GTD, mean_GD, found.order_GT, found.start_GC, found.size_GC,
        found.centroids_GCD, found.values_GCD, found.spread_GC, tokens, clusters, width,
        *keys_GTD.stride()[:2], *values_GTD.stride()[:2],
        BLOCK_T=16, BLOCK_D=pow2(width, 16), num_warps=1,
    )  # fmt: skip
    return found
