"""The scan of a step in Triton: weights, scores and exact products, a launch each for all rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl

from longspan_kernels.jit import device_of, pow2
from longspan_kernels.key_scan.reference import LEAST, MOST, SUM
from longspan_kernels.key_scan.triton import BLOCK_T, MOST_COLUMNS, MOST_LANES

if TYPE_CHECKING:
    from torch import Tensor

    from longspan_kernels.key_scan.steps import Candidates, SlotCodes

BLOCK_S, BLOCK_C = 16, 32
"""Stretches whose weights a program makes, and candidates whose keys it reads."""


@triton.jit
def order_of(score, slot, there):
    """A number that orders scores as the reference does, with the slot as its low half."""
    bits = score.to(tl.int32, bitcast=True)
    bits = tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits).to(tl.int64)
    return tl.where(there, (bits << 32) + slot, -0x7FFFFFFFFFFFFFFF - 1)


@triton.jit
def weigh_stretches(
    y, step, high, low, unit, R, S, W, limit, least, step_n, step_s,
    BLOCK_S: tl.constexpr, BLOCK_W: tl.constexpr,
):  # fmt: skip
    """The weights of a query in some stretches, whole numbers in two parts, and their units."""
    head = tl.program_id(1).to(tl.int64)
    s, w = tl.program_id(0) * BLOCK_S + tl.arange(0, BLOCK_S), tl.arange(0, BLOCK_W)
    inside = (s < S)[:, None] & (w < W)[None, :]
    step_SW = tl.load(step + head // R * step_n + s[:, None] * step_s + w[None, :], inside, 0.0)
    weight_SW = tl.load(y + head * W + w, w < W, 0.0)[None, :] * step_SW
    largest_S = tl.max(tl.abs(weight_SW), 1)
    unit_S = tl.where(largest_S > least, tl.div_rn(largest_S, limit), 1.0)
    # adding the number rounds to whole ones, half to even, as torch does
    whole_SW = (tl.div_rn(weight_SW, unit_S[:, None]) + 12582912.0) - 12582912.0
    upper_SW = (whole_SW * 0.00390625 + 12582912.0) - 12582912.0
    at = head * S + s
    to = at[:, None] * W + w[None, :]
    tl.store(high + to, upper_SW.to(tl.float16), inside)
    tl.store(low + to, (whole_SW - 256.0 * upper_SW).to(tl.float16), inside)
    tl.store(unit + at, unit_S, s < S)


@triton.jit
def store_slot_order(
    code, high, low, unit, stretch, slots, tokens, order, T, N, G, R, S, W, stride_n, stride_t,
    stretch_stride, BLOCK_R: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_W: tl.constexpr,
):  # fmt: skip
    """The order of some tokens, a row a query head. Most blocks lie in one stretch."""
    n = (tl.program_id(1) % N).to(tl.int64)
    row = n // G
    lane = tl.program_id(1) // N * BLOCK_R + tl.arange(0, BLOCK_R)
    t = tl.program_id(0) * BLOCK_T + tl.arange(0, BLOCK_T)
    w = tl.arange(0, BLOCK_W)
    head, lanes = n * R + lane, lane < R
    there = t < tl.load(tokens + row)
    mine = tl.load(stretch + row * stretch_stride + t, there, 0)
    begin = tl.min(tl.where(there, mine, S), 0)
    end = tl.max(tl.where(there, mine + 1, 0), 0)
    score_RT = tl.zeros((BLOCK_R, BLOCK_T), tl.float32)
    for s in range(begin, end):
        # both parts of a weight and the codes are whole numbers below 2^11, their sums below 2^24
        high_RT = tl.zeros((BLOCK_R, BLOCK_T), tl.float32)
        low_RT = tl.zeros((BLOCK_R, BLOCK_T), tl.float32)
        at = head * S + s
        for column in range(0, W, BLOCK_W):
            at_WT = (column + w).to(tl.int64)[:, None] + t.to(tl.int64)[None, :] * stride_t
            code_WT = tl.load(code + n * stride_n + at_WT, there[None, :], 0).to(tl.float16)
            at_RW = at[:, None] * W + column + w[None, :]
            high_RT = tl.dot(tl.load(high + at_RW, lanes[:, None], 0.0), code_WT, high_RT)
            low_RT = tl.dot(tl.load(low + at_RW, lanes[:, None], 0.0), code_WT, low_RT)
        found_RT = (high_RT.to(tl.int32) * 256 + low_RT.to(tl.int32)).to(tl.float32)
        found_RT *= tl.load(unit + at, lanes, 0.0)[:, None]
        score_RT = tl.where((mine == s)[None, :], found_RT, score_RT)
    slot = (tl.load(slots + row) + t).to(tl.int64)
    number_RT = order_of(score_RT, slot[None, :], there[None, :])
    tl.store(order + head[:, None] * T + t[None, :], number_RT, lanes[:, None] & (t < T)[None, :])


@triton.jit
def order_exactly(
    q, keys, found, counts, order, C, D, R, heads, q_stride, stride_n, stride_t,
    BLOCK_C: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """The order of some candidates of a query head by their keys."""
    head = tl.program_id(1).to(tl.int64)
    c, d = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C), tl.arange(0, BLOCK_D)
    counted = c < tl.load(counts + head // heads)
    slot = tl.load(found + head * C + c, counted, 0) & 0xFFFFFFFF
    at_CD = head // R * stride_n + slot[:, None] * stride_t + d[None, :]
    key_CD = tl.load(keys + at_CD, counted[:, None] & (d < D)[None, :], 0.0).to(tl.float32)
    q_D = tl.load(q + head * q_stride + d, d < D, 0.0).to(tl.float32)
    number = order_of(tl.sum(key_CD * q_D[None, :], 1), slot, counted)
    tl.store(order + head * C + c, number, c < C)


def best_slots(q_XD: Tensor, codes: SlotCodes, most: int, candidates: Candidates | None) -> Tensor:
    """As the reference, but for the rounding of the exact products."""
    with device_of(q_XD):
        order_XT = scan(q_XD, codes)
        found_XC = order_XT.topk(most if candidates is None else candidates.most, dim=1).values
        if candidates is not None:
            found_XC = exactly(q_XD, found_XC, candidates).topk(most, dim=1).values
    return (found_XC & 0xFFFFFFFF).int()


def scan(q_XD: Tensor, codes: SlotCodes) -> Tensor:
    """int64 [X, T]: numbers that order all tokens."""
    heads, room, columns = codes.code_NTW.shape
    stretches, rows = codes.step_NSW.shape[1], len(codes.tokens_B)
    y_NRW = q_XD.float().view(heads, -1, q_XD.shape[1]) @ codes.to_queries_NDW
    every, a_group = len(q_XD), y_NRW.shape[1]
    parts = torch.empty(2, every, stretches, columns, dtype=torch.float16, device=q_XD.device)
    unit_XS = torch.empty(every, stretches, device=q_XD.device)
    weigh_stretches[(triton.cdiv(stretches, BLOCK_S), every)](
        y_NRW, codes.step_NSW, parts[0], parts[1], unit_XS, a_group, stretches, columns,
        min(MOST, SUM / columns), LEAST, *codes.step_NSW.stride()[:2],
        BLOCK_S=BLOCK_S, BLOCK_W=pow2(columns),
    )  # fmt: skip
    order_XT = torch.empty(every, room, dtype=torch.int64, device=q_XD.device)
    block_r = min(pow2(a_group, 16), MOST_LANES)
    store_slot_order[(triton.cdiv(room, BLOCK_T), heads * triton.cdiv(a_group, block_r))](
        codes.code_NTW, parts[0], parts[1], unit_XS, codes.stretch_BT, codes.first_B,
        codes.tokens_B, order_XT, room, heads, heads // rows, a_group, stretches, columns,
        *codes.code_NTW.stride()[:2], codes.stretch_BT.stride(0),
        BLOCK_R=block_r, BLOCK_T=BLOCK_T, BLOCK_W=min(columns & -columns, MOST_COLUMNS),
        num_warps=8 if block_r > 32 else 4,
    )  # fmt: skip
    return order_XT


def exactly(q_XD: Tensor, found_XC: Tensor, candidates: Candidates) -> Tensor:
    """int64 [X, C]: numbers that order what was found by the keys themselves."""
    keys_NCD = candidates.keys_NCD
    (every, count), size, rows = found_XC.shape, q_XD.shape[1], len(candidates.count_B)
    order_XC = torch.empty_like(found_XC)
    order_exactly[(triton.cdiv(count, BLOCK_C), every)](
        q_XD, keys_NCD, found_XC, candidates.count_B, order_XC, count, size,
        every // len(keys_NCD), every // rows, q_XD.stride(0), *keys_NCD.stride()[:2],
        BLOCK_C=BLOCK_C, BLOCK_D=pow2(size),
    )  # fmt: skip
    return order_XC
