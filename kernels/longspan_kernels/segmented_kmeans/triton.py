"""Clustering in Triton. Every sum is taken in a fixed order, so runs repeat bit for bit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl

from longspan_kernels.jit import device_of, pow2
from longspan_kernels.segmented_kmeans.describe_triton import described
from longspan_kernels.segmented_kmeans.seeds_triton import part_of, seeds

if TYPE_CHECKING:
    from torch import Tensor

    from longspan_kernels.segmented_kmeans.reference_seeds import Seeding
    from longspan_kernels.types import Clusters

HELD = 1 << 28
"""Numbers of centred keys that are held at once, heads of one after another (512 MB in float16)."""


@triton.jit
def centre(
    keys, mean, scale, x, short, T, D, k_stride_g, k_stride_t, blocks,
    BLOCK_T: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Keys less their mean, scaled, and 1 over their lengths."""
    group = (tl.program_id(0) // blocks).to(tl.int64)
    token = tl.program_id(0) % blocks * BLOCK_T + tl.arange(0, BLOCK_T)
    d = tl.arange(0, BLOCK_D)
    mask = (token < T)[:, None] & (d < D)[None, :]
    at = group * k_stride_g + token.to(tl.int64)[:, None] * k_stride_t + d[None, :]
    x_TD = tl.load(keys + at, mask, 0.0).to(tl.float32)
    x_TD -= tl.load(mean + group * D + d, d < D, 0.0)[None, :]
    x_TD = tl.where(mask, x_TD * tl.load(scale + group), 0.0)
    at = group * T + token
    tl.store(x + at[:, None] * D + d[None, :], x_TD.to(x.dtype.element_ty), mask)
    length_T = tl.sqrt(tl.sum(x_TD * x_TD, 1))
    tl.store(short + at, 1.0 / tl.maximum(length_T, 1e-12), token < T)


@triton.jit
def assign(
    x, centroids, label, T, C, D, SEGMENTS, x_stride_g, x_stride_t, mean, less,
    EVERYWHERE: tl.constexpr, LESS: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_C: tl.constexpr,
    BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Label of each token of a segment: its centroid of largest inner product, ties to the first;
    out of its segment, or EVERYWHERE. LESS: of tokens less their mean, and less what is taken off
    each centroid's product.
    """
    blocks = tl.cdiv(tl.cdiv(T, SEGMENTS), BLOCK_T)
    block, begin, end, low, high, group = part_of(T, C, SEGMENTS, blocks)
    if EVERYWHERE:
        low, high = low * 0, high * 0 + C
    token = begin + block * BLOCK_T + tl.arange(0, BLOCK_T)
    d = tl.arange(0, BLOCK_D)
    mask = (token < end)[:, None] & (d < D)[None, :]
    x_TD = tl.load(x + group * x_stride_g + token[:, None] * x_stride_t + d[None, :], mask, 0.0)
    if LESS:
        x_TD = x_TD.to(tl.float32) - tl.load(mean + group * D + d, d < D, 0.0)[None, :]
        x_TD = x_TD.to(centroids.dtype.element_ty)
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
    x, centroids, label, T, C, D, SEGMENTS,
    BLOCK_T: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """The normalised mean of the members of a block of a segment's clusters; those without members,
    or whose members come to nothing, stay.

    Which token is whose is a matrix of zeros and ones, so that the sums are a matrix product.
    """
    blocks = tl.cdiv(tl.cdiv(C, SEGMENTS), BLOCK_C)
    block, begin, end, low, high, group = part_of(T, C, SEGMENTS, blocks)
    c = low + block * BLOCK_C + tl.arange(0, BLOCK_C)
    d = tl.arange(0, BLOCK_D)
    acc = tl.zeros((BLOCK_C, BLOCK_D), tl.float32)
    for first in range(begin, end, BLOCK_T):
        token = first + tl.arange(0, BLOCK_T)
        at = group * T + token
        mask = (token < end)[:, None] & (d < D)[None, :]
        x_TD = tl.load(x + at[:, None] * D + d[None, :], mask, 0.0)
        whose = tl.load(label + at, token < end, -1).to(tl.int32)
        mine_CT = (c[:, None] == whose[None, :]).to(x_TD.dtype)
        acc = tl.dot(mine_CT, x_TD, acc, input_precision="ieee")
    norm = tl.sqrt(tl.sum(acc * acc, 1))
    unit = acc / tl.maximum(norm, 1e-12)[:, None]
    mask = ((c < high) & (norm > 0))[:, None] & (d < D)[None, :]
    at = (group * C + c)[:, None] * D + d[None, :]
    tl.store(centroids + at, unit.to(centroids.dtype.element_ty), mask)


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
    small = torch.int16 if clusters < 1 << 15 else torch.int32  # sorting takes a pass a byte
    label_GT = torch.empty(groups, tokens, dtype=small, device=keys_GTD.device)
    together = max(1, HELD // (tokens * width))
    with device_of(keys_GTD):
        for some in (slice(at, at + together) for at in range(0, groups, together)):
            x_GTD, short_GT = centred(keys_GTD[some], mean_GD[some])
            centroids_GCD = seeds(x_GTD, short_GT, clusters, segments, seeding)
            train(x_GTD, centroids_GCD, label_GT[some], segments, iterations, final)
        return described(keys_GTD, values_GTD, mean_GD, label_GT, clusters)


def centred(keys_GTD: Tensor, mean_GD: Tensor) -> tuple[Tensor, Tensor]:
    """Keys less their mean, in float16, scaled, unless they are float32; and 1 over the lengths."""
    groups, tokens, width = keys_GTD.shape
    half = keys_GTD.dtype != torch.float32
    scale_G = inverse_range(keys_GTD, mean_GD) if half else torch.ones_like(mean_GD[:, 0])
    kind, device = torch.float16 if half else torch.float32, keys_GTD.device
    x_GTD = torch.empty(groups, tokens, width, dtype=kind, device=device)
    short_GT = torch.empty(groups, tokens, dtype=torch.float32, device=device)
    tiles = triton.cdiv(tokens, 32)
    centre[(groups * tiles,)](
        keys_GTD, mean_GD, scale_G, x_GTD, short_GT, tokens, width, *keys_GTD.stride()[:2], tiles,
        BLOCK_T=32, BLOCK_D=pow2(width, 16),
    )  # fmt: skip
    return x_GTD, short_GT


def train(
    x_GTD: Tensor,
    centroids_GCD: Tensor,
    label_GT: Tensor,
    segments: int,
    iterations: int,
    final: str,
) -> None:
    """Rounds of both, and the last assignment; writes the labels."""
    (groups, tokens, width), clusters = x_GTD.shape, centroids_GCD.shape[1]
    large = x_GTD.dtype != torch.float32 and width <= 128
    here = {"BLOCK_T": 128 if large else 32, "BLOCK_C": 64, "num_warps": 8 if large else 4}
    there = {"BLOCK_T": 64, "BLOCK_C": 128, "num_warps": 8} if large else here
    longest, most, rows = -(-tokens // segments), -(-clusters // segments), groups * segments
    to_assign = (triton.cdiv(longest, here["BLOCK_T"]) * rows,)
    to_update = (triton.cdiv(most, there["BLOCK_C"]) * rows,)
    arrays = x_GTD, centroids_GCD, label_GT, tokens, clusters, width, segments
    rest = *x_GTD.stride()[:2], x_GTD, x_GTD
    fixed = {"LESS": False, "BLOCK_D": pow2(width, 16)}
    for _ in range(iterations - 1):
        assign[to_assign](*arrays, *rest, EVERYWHERE=False, **fixed, **here)
        update[to_update](*arrays, BLOCK_D=fixed["BLOCK_D"], **there)
    assign[to_assign](*arrays, *rest, EVERYWHERE=final == "global", **fixed, **here)


def inverse_range(keys_GTD: Tensor, mean_GD: Tensor) -> Tensor:
    """float32 [G]: what brings each head's largest distance from the mean, by element, to 1."""
    low_GD, high_GD = keys_GTD.aminmax(dim=1)
    reach_GD = torch.maximum(high_GD.float() - mean_GD, mean_GD - low_GD.float())
    return 1.0 / reach_GD.amax(1).clamp(min=1e-30)
