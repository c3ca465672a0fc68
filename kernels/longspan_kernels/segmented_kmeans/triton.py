"""Clustering in Triton. Every sum is taken in a fixed order, so runs repeat bit for bit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl

from longspan_kernels.jit import device_of, pow2
from longspan_kernels.segmented_kmeans.describe_triton import described
from longspan_kernels.segmented_kmeans.seeds_triton import seeds

if TYPE_CHECKING:
    from torch import Tensor

    from longspan_kernels.segmented_kmeans.reference_seeds import Seeding
    from longspan_kernels.types import Clusters


@triton.jit
def part_of(T, C, SEGMENTS, blocks):
    """Which of so many blocks of a segment a program is of, the segment's tokens and clusters, and
    the group: one dimension, as the others of a grid end at 65,535.
    """
    row = tl.program_id(0) // blocks
    segment = (row % SEGMENTS).to(tl.int64)
    low = ((segment * C) // SEGMENTS).to(tl.int32)
    high = (((segment + 1) * C) // SEGMENTS).to(tl.int32)
    begin, end = (segment * T) // SEGMENTS, ((segment + 1) * T) // SEGMENTS
    return tl.program_id(0) % blocks, begin, end, low, high, (row // SEGMENTS).to(tl.int64)


@triton.jit
def assign(
    keys, mean, scale, centroids, label, T, C, D, SEGMENTS, k_stride_g, k_stride_t, less,
    EVERYWHERE: tl.constexpr, LESS: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_C: tl.constexpr,
    BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Label of each token of a segment: its centroid of largest inner product, LESS what is taken
    off each centroid's, ties to the first; out of its segment, or EVERYWHERE.
    """
    blocks = tl.cdiv(tl.cdiv(T, SEGMENTS), BLOCK_T)
    block, begin, end, low, high, group = part_of(T, C, SEGMENTS, blocks)
    if EVERYWHERE:
        low, high = low * 0, high * 0 + C
    token = begin + block * BLOCK_T + tl.arange(0, BLOCK_T)
    d = tl.arange(0, BLOCK_D)
    mask = (token < end)[:, None] & (d < D)[None, :]
    x_TD = tl.load(keys + group * k_stride_g + token[:, None] * k_stride_t + d[None, :], mask, 0.0)
    x_TD = x_TD.to(tl.float32) - tl.load(mean + group * D + d, d < D, 0.0)[None, :]
    x_TD = (x_TD * tl.load(scale + group)).to(centroids.dtype.element_ty)
    best_TC = tl.full((BLOCK_T, BLOCK_C), -float("inf"), tl.float32)
    block_TC = tl.zeros((BLOCK_T, BLOCK_C), tl.int32)
    lane = tl.arange(0, BLOCK_C)
    for first in range(low, high, BLOCK_C):
        c = first + lane
        at = (group * C + c)[:, None] * D + d[None, :]
        c_CD = tl.load(centroids + at, (c < high)[:, None] & (d < D)[None, :], 0.0)
        score_TC = tl.dot(x_TD, tl.trans(c_CD), input_precision="ieee")
        if LESS:
            score_TC -= tl.load(less + group * C + c, c < high, 0.0)[None, :]
        score_TC = tl.where((c < high)[None, :], score_TC, -float("inf"))
        block_TC = tl.where(score_TC > best_TC, first, block_TC)
        best_TC = tl.maximum(best_TC, score_TC)
    # block_TC is 0 where no score was above -inf
    number_TC = tl.where(best_TC == tl.max(best_TC, 1)[:, None], block_TC + lane[None, :], C - 1)
    tl.store(
        label + group * T + token, tl.min(number_TC, 1).to(label.dtype.element_ty), token < end
    )


@triton.jit
def update(
    keys, mean, scale, centroids, label, T, C, D, SEGMENTS, k_stride_g, k_stride_t,
    BLOCK_T: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """The normalised mean of the members of a block of a segment's clusters; empty ones stay.

    Which token is whose is a matrix of zeros and ones, so that the sums are a matrix product.
    """
    blocks = tl.cdiv(tl.cdiv(C, SEGMENTS), BLOCK_C)
    block, begin, end, low, high, group = part_of(T, C, SEGMENTS, blocks)
    c = low + block * BLOCK_C + tl.arange(0, BLOCK_C)
    d = tl.arange(0, BLOCK_D)
    kind = centroids.dtype.element_ty
    mean_D, factor = tl.load(mean + group * D + d, d < D, 0.0), tl.load(scale + group)
    acc = tl.zeros((BLOCK_C, BLOCK_D), tl.float32)
    members = tl.zeros((BLOCK_C,), tl.float32)
    for first in range(begin, end, BLOCK_T):
        token = first + tl.arange(0, BLOCK_T)
        mask = (token < end)[:, None] & (d < D)[None, :]
        at = group * k_stride_g + token[:, None] * k_stride_t + d[None, :]
        x_TD = (tl.load(keys + at, mask, 0.0).to(tl.float32) - mean_D[None, :]) * factor
        whose = tl.load(label + group * T + token, token < end, -1).to(tl.int32)
        mine_CT = c[:, None] == whose[None, :]
        acc += tl.dot(mine_CT.to(kind), x_TD.to(kind), input_precision="ieee")
        members += tl.sum(mine_CT.to(tl.float32), 1)
    norm = tl.sqrt(tl.sum(tl.where((d < D)[None, :], acc * acc, 0.0), 1))
    unit = acc / tl.maximum(norm, 1e-12)[:, None]
    mask = ((c < high) & (members > 0))[:, None] & (d < D)[None, :]
    tl.store(centroids + (group * C + c)[:, None] * D + d[None, :], unit.to(kind), mask)


def segmented_kmeans(
    keys_GTD: Tensor,
    values_GTD: Tensor,
    *,
    clusters: int,
    segments: int,
    iterations: int,
    seeding: Seeding,
    final: str,
) -> Clusters:
    """As the reference, but for the rounding of sums: 16-bit keys are trained on in float16, less
    their mean and scaled to at most 1, of which neither changes who is nearest.
    """
    groups, tokens, width = keys_GTD.shape
    segments = min(segments, clusters, tokens)
    mean_GD = keys_GTD.mean(1, dtype=torch.float32)
    half = keys_GTD.dtype != torch.float32
    scale_G = inverse_range(keys_GTD, mean_GD) if half else torch.ones_like(mean_GD[:, 0])
    centroids_GCD = seeds(keys_GTD, mean_GD, clusters, segments, seeding)
    centroids_GCD = (centroids_GCD * scale_G[:, None, None]).to(torch.float16 if half else None)
    label_GT = torch.empty(groups, tokens, dtype=torch.int64, device=keys_GTD.device)
    arrays = (keys_GTD, mean_GD, scale_G, centroids_GCD, label_GT)
    sizes = (tokens, clusters, width, segments, *keys_GTD.stride()[:2])
    block_d = pow2(width, 16)
    large = half and width <= 128
    here = {"BLOCK_T": 128 if large else 32, "BLOCK_C": 64, "num_warps": 8 if large else 4}
    there = {"BLOCK_T": 64, "BLOCK_C": 128, "num_warps": 8} if large else here
    longest, most = -(-tokens // segments), -(-clusters // segments)
    rows = groups * segments
    to_assign = (triton.cdiv(longest, here["BLOCK_T"]) * rows,)
    to_update = (triton.cdiv(most, there["BLOCK_C"]) * rows,)
    plain, fixed = (*sizes, keys_GTD), {"LESS": False, "BLOCK_D": block_d}
    with device_of(keys_GTD):
        for _ in range(iterations - 1):
            assign[to_assign](*arrays, *plain, EVERYWHERE=False, **fixed, **here)
            update[to_update](*arrays, *sizes, BLOCK_D=block_d, **there)
        everywhere = final == "global"
        assign[to_assign](*arrays, *plain, EVERYWHERE=everywhere, **fixed, **here)
        return described(keys_GTD, values_GTD, mean_GD, label_GT, clusters)


def inverse_range(keys_GTD: Tensor, mean_GD: Tensor) -> Tensor:
    """float32 [G]: what brings each head's largest distance from the mean, by element, to 1."""
    low_GD, high_GD = keys_GTD.aminmax(dim=1)
    reach_GD = torch.maximum(high_GD.float() - mean_GD, mean_GD - low_GD.float())
    return 1.0 / reach_GD.amax(1).clamp(min=1e-30)
