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
    begin = tl.load(start + group * C + c)
    members = tl.load(size + group * C + c)
    sum_D = tl.zeros((BLOCK_D,), tl.float32)
    value_D = tl.zeros((BLOCK_D,), tl.float32)
    for first in range(0, members, BLOCK_T):
        place = first + tl.arange(0, BLOCK_T)
        live = place < members
        token = tl.load(order + group * T + begin + place, live, 0)
        mask = live[:, None] & (d < D)[None, :]
        x_TD = tl.load(
            keys + group * k_stride_g + token[:, None] * k_stride_t + d[None, :], mask, 0.0
        )
        x_TD = tl.where(mask, x_TD.to(tl.float32) - mean_D[None, :], 0.0)
        v_TD = tl.load(
            values + group * v_stride_g + token[:, None] * v_stride_t + d[None, :], mask, 0.0
        )
        sum_D += tl.sum(x_TD, 0)
        value_D += tl.sum(v_TD.to(tl.float32), 0)
    share = 1.0 / tl.maximum(members, 1).to(tl.float32)
    centred_D = sum_D * share
    row = group * C + c
    tl.store(centroids + row * D + d, centred_D + mean_D, d < D)
    tl.store(means + row * D + d, value_D * share, d < D)
    square = tl.zeros((), tl.float32)  # about the centroid: a difference of large sums is rounding
    for first in range(0, members, BLOCK_T):
        place = first + tl.arange(0, BLOCK_T)
        live = place < members
        token = tl.load(order + group * T + begin + place, live, 0)
        mask = live[:, None] & (d < D)[None, :]
        x_TD = tl.load(
            keys + group * k_stride_g + token[:, None] * k_stride_t + d[None, :], mask, 0.0
        )
        x_TD = x_TD.to(tl.float32) - mean_D[None, :] - centred_D[None, :]
        x_TD = tl.where(mask, x_TD, 0.0)
        square += tl.sum(tl.sum(x_TD * x_TD, 1), 0)
    tl.store(spread + row, square * share / D)


def described(
    keys_GTD: Tensor, values_GTD: Tensor, mean_GD: Tensor, label_GT: Tensor, clusters: int
) -> Clusters:
    """The clusters that the labels define."""
    groups, tokens, width = keys_GTD.shape
    floats = partial(torch.empty, dtype=torch.float32, device=keys_GTD.device)
    size_GC = counts(label_GT, clusters)
    small = torch.int16 if clusters < 1 << 15 else torch.int32  # sorting takes a pass a byte
    found = Clusters(
        order_GT=label_GT.to(small).argsort(dim=1, stable=True),
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
