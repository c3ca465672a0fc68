"""The scan in Triton. A program scores some codes for the query heads of their group."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl

from longspan_kernels.jit import device_of, pow2
from longspan_kernels.key_scan.reference import products, quantised, ranked

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

BLOCK_T, MOST_LANES, MOST_COLUMNS = 128, 64, 64
"""Codes a program has at once, for how many heads at most, and of how many columns."""


@triton.jit
def store_order(
    code, high, low, unit, order, order_stride, first, T, G, R, W, stride_g, stride_t,
    BLOCK_R: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_W: tl.constexpr,
):  # fmt: skip
    """A number that orders the scores of some tokens as the reference does, a row a query head."""
    group = (tl.program_id(1) % G).to(tl.int64)
    lane = tl.program_id(1) // G * BLOCK_R + tl.arange(0, BLOCK_R)
    t = tl.program_id(0) * BLOCK_T + tl.arange(0, BLOCK_T)
    w = tl.arange(0, BLOCK_W)
    head = group * R + lane
    rows, tokens = lane < R, t < T
    # both parts of a weight and the codes are whole numbers below 2^11, their sums below 2^24
    high_RT = tl.zeros((BLOCK_R, BLOCK_T), tl.float32)
    low_RT = tl.zeros((BLOCK_R, BLOCK_T), tl.float32)
    for column in range(0, W, BLOCK_W):
        at_WT = (column + w).to(tl.int64)[:, None] + t.to(tl.int64)[None, :] * stride_t
        code_WT = tl.load(code + group * stride_g + at_WT, tokens[None, :], 0).to(tl.float16)
        at_RW = head[:, None] * W + column + w[None, :]
        high_RT = tl.dot(tl.load(high + at_RW, rows[:, None], 0.0), code_WT, high_RT)
        low_RT = tl.dot(tl.load(low + at_RW, rows[:, None], 0.0), code_WT, low_RT)
    score_RT = (high_RT.to(tl.int32) * 256 + low_RT.to(tl.int32)).to(tl.float32)
    score_RT *= tl.load(unit + head, rows, 0.0)[:, None]
    bits = score_RT.to(tl.int32, bitcast=True)
    bits = tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits).to(tl.int64)
    number = (bits << 32) + (first + t)[None, :]
    to = head[:, None] * order_stride + t[None, :]
    tl.store(order + to, number, rows[:, None] & tokens[None, :])


def best_keys(
    q_HD: Tensor,
    weights: Sequence[Tensor],
    codes: Sequence[Tensor],
    k: int,
    candidates: int,
    keys_GTDs: Sequence[Tensor],
) -> Tensor:
    """As the reference, whose scores are its own to the last bit."""
    tokens = [code_GTW.shape[1] for code_GTW in codes]
    order_HT = torch.empty(len(q_HD), sum(tokens), dtype=torch.int64, device=q_HD.device)
    with device_of(q_HD):
        first = 0
        for weights_HW, code_GTW in zip(weights, codes, strict=True):
            scan(weights_HW, code_GTW, order_HT[:, first:], first)
            first += code_GTW.shape[1]
    found_HC = order_HT.topk(candidates, dim=1).values & 0xFFFFFFFF
    if keys_GTDs:
        found_HC = ranked(products(q_HD, keys_GTDs, found_HC), found_HC, k)
    return found_HC[:, :k].int()


def scan(weights_HW: Tensor, code_GTW: Tensor, order_HT: Tensor, first: int) -> None:
    """Write the order of a stretch's scores; its first token has the number `first`."""
    whole_HW, unit_H = quantised(weights_HW)
    high_HW = (whole_HW / 256).round()
    low_HW = whole_HW - 256 * high_HW
    groups, tokens, columns = code_GTW.shape
    a_group = len(weights_HW) // groups
    block_r = min(pow2(a_group, 16), MOST_LANES)
    grid = triton.cdiv(tokens, BLOCK_T), groups * triton.cdiv(a_group, block_r)
    store_order[grid](
        code_GTW, high_HW.half(), low_HW.half(), unit_H, order_HT, order_HT.stride(0), first,
        tokens, groups, a_group, columns, *code_GTW.stride()[:2],
        BLOCK_R=block_r, BLOCK_T=BLOCK_T, BLOCK_W=min(columns & -columns, MOST_COLUMNS),
        num_warps=8 if block_r > 32 else 4,
    )  # fmt: skip
