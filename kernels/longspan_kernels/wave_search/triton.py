"""Ranking clusters in Triton: scores and each block's share of the softmax, then the votes."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl

from longspan_kernels.jit import capped, device_of, exact, joined, pow2
from longspan_kernels.types import WaveHits
from longspan_kernels.wave_search.reference import covered
from longspan_kernels.wave_search.select_triton import selected

if TYPE_CHECKING:
    from torch import Tensor

    from longspan_kernels.types import Runs

SCORE_BLOCK, VOTE_BLOCK, PART_BLOCK = 64, 512, 64
"""Centroids a program scores, centroids it counts votes for, partial masses it adds at once."""


@triton.jit
def score_block(
    q, centroids, size, bias, score, top, mass, live, scale, softcap, C, R, D, BLOCKS,
    q_stride, c_stride_g, c_stride_c, s_stride, b_stride,
    CAPPED: tl.constexpr, BIASED: tl.constexpr, EXACT: tl.constexpr,
    BLOCK_R: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Scores of a block of centroids for the heads of a group: their maximum and mass, per head,
    and how many clusters of the block have members.
    """
    block = tl.program_id(0)
    group = tl.program_id(1).to(tl.int64)
    d, lane = tl.arange(0, BLOCK_D), tl.arange(0, BLOCK_R)
    c = block * BLOCK_C + tl.arange(0, BLOCK_C)
    head = group * R + lane
    filled = tl.load(size + group * s_stride + c, c < C, 0) > 0
    lane_mask = (lane < R)[:, None] & (d < D)[None, :]
    q_RD = tl.load(q + head[:, None] * q_stride + d[None, :], lane_mask, 0.0)
    c_at = group * c_stride_g + c.to(tl.int64)[:, None] * c_stride_c + d[None, :]
    c_CD = tl.load(centroids + c_at, filled[:, None] & (d < D)[None, :], 0.0)
    if EXACT:
        q_RD, c_CD = q_RD.to(tl.float32), c_CD.to(tl.float32)
    score_RC = tl.dot(q_RD, tl.trans(c_CD), input_precision="ieee") * scale
    score_RC = tl.where(filled[None, :], capped(score_RC, softcap, CAPPED), -float("inf"))
    at = head[:, None] * C + c[None, :]
    tl.store(score + at, score_RC, (lane < R)[:, None] & (c < C)[None, :])
    if BIASED:
        score_RC += tl.load(bias + group * b_stride + c, filled, 0.0)[None, :]
    most = tl.max(score_RC, 1)
    base = tl.where(most == -float("inf"), 0.0, most)
    tl.store(top + head * BLOCKS + block, most, lane < R)
    tl.store(mass + head * BLOCKS + block, tl.sum(tl.exp(score_RC - base[:, None]), 1), lane < R)
    tl.store(live + group * BLOCKS + block, tl.sum(filled.to(tl.int32), 0))


@triton.jit
def vote_block(
    size, bias, weight, score, top, mass, live, vote, total, C, R, BLOCKS, LIMIT,
    s_stride, b_stride, BIASED: tl.constexpr, WEIGHED: tl.constexpr, LARGEST: tl.constexpr,
    BLOCK_R: tl.constexpr, BLOCK_B: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """The votes of a group for a block of centroids: shares of each head's whole softmax."""
    block = tl.program_id(0)
    group = tl.program_id(1).to(tl.int64)
    lane = tl.arange(0, BLOCK_R)
    c = block * BLOCK_C + tl.arange(0, BLOCK_C)
    head = group * R + lane
    most, mass_R = joined(top, mass, head, lane < R, BLOCKS, BLOCK_R, BLOCK_B)
    base = tl.where(most == -float("inf"), 0.0, most)

    filled = tl.load(size + group * s_stride + c, c < C, 0) > 0
    inside = (lane < R)[:, None] & filled[None, :]
    score_RC = tl.load(score + head[:, None] * C + c[None, :], inside, -float("inf"))
    if BIASED:
        score_RC += tl.load(bias + group * b_stride + c, filled, 0.0)[None, :]
    share_RC = tl.exp(score_RC - base[:, None]) / tl.where(lane < R, mass_R, 1.0)[:, None]
    if WEIGHED:
        share_RC *= tl.load(weight + head, lane < R, 0.0)[:, None]
    if LARGEST:
        share_RC = tl.where((lane < R)[:, None], share_RC, -float("inf"))
        votes = tl.max(share_RC, 0)
    else:
        votes = tl.sum(tl.where((lane < R)[:, None], share_RC, 0.0), 0)
    tl.store(vote + group * C + c, tl.where(filled, votes, -float("inf")), c < C)
    if block == 0:
        found = tl.zeros((), tl.int32)
        for first in range(0, BLOCKS, BLOCK_B):
            b = first + tl.arange(0, BLOCK_B)
            found += tl.sum(tl.load(live + group * BLOCKS + b, b < BLOCKS, 0), 0)
        tl.store(total + group, tl.minimum(found, LIMIT))


def wave_search(
    q_HD: Tensor,
    centroids_GCD: Tensor,
    size_GC: Tensor,
    *,
    retrieve: int,
    estimate: int,
    scale: float,
    softcap: float | None,
    vote: str,
    bias_GC: Tensor | None,
    weight_H: Tensor | None,
    within: Runs | None,
    want_scores: bool,
    most_2G: Tensor | None,
) -> WaveHits:
    """As the reference, but that it does not look for queries that are not finite: that would
    stop the device. Their attention comes out as NaN. Clusters that take no part are scored.
    """
    if within is not None:
        size_GC = size_GC.where(covered(within, size_GC.shape[1]), 0)
    (heads, width), (groups, clusters, _) = q_HD.shape, centroids_GCD.shape
    a_group, blocks = heads // groups, triton.cdiv(clusters, SCORE_BLOCK)
    floats = partial(torch.empty, dtype=torch.float32, device=q_HD.device)
    score_HC, vote_GC = floats(heads, clusters), floats(groups, clusters)
    top_HB, mass_HB = floats(heads, blocks), floats(heads, blocks)
    live_GB = torch.empty(groups, blocks, dtype=torch.int32, device=q_HD.device)
    live_G = torch.empty(groups, dtype=torch.int32, device=q_HD.device)
    bias_stride = 0 if bias_GC is None else bias_GC.stride(0)
    shape = {"BLOCK_R": pow2(a_group, 16), "BIASED": bias_GC is not None}
    bias = q_HD if bias_GC is None else bias_GC
    with device_of(q_HD):
        score_block[(blocks, groups)](
            q_HD, centroids_GCD, size_GC, bias, score_HC, top_HB, mass_HB, live_GB,
            scale, softcap or 0.0, clusters, a_group, width, blocks, q_HD.stride(0),
            *centroids_GCD.stride()[:2], size_GC.stride(0), bias_stride, **shape,
            CAPPED=softcap is not None, EXACT=exact(q_HD, centroids_GCD),
            BLOCK_D=pow2(width, 16), BLOCK_C=SCORE_BLOCK,
        )  # fmt: skip
        vote_block[(triton.cdiv(clusters, VOTE_BLOCK), groups)](
            size_GC, bias, q_HD if weight_H is None else weight_H.contiguous(), score_HC,
            top_HB, mass_HB, live_GB, vote_GC, live_G, clusters, a_group, blocks,
            retrieve + estimate, size_GC.stride(0), bias_stride, **shape,
            WEIGHED=weight_H is not None, LARGEST=vote == "max",
            BLOCK_C=VOTE_BLOCK, BLOCK_B=PART_BLOCK, num_warps=8,
        )  # fmt: skip
        told_HC = score_HC if want_scores else None
        if most_2G is not None:
            first, second, count_2G = selected(vote_GC, retrieve, estimate, most_2G)
            return WaveHits(first, second, live_G, told_HC, count_2G)
    ranked_GK = vote_GC.topk(retrieve + estimate, dim=-1).indices.int()
    return WaveHits(ranked_GK[:, :retrieve], ranked_GK[:, retrieve:], live_G, told_HC)
