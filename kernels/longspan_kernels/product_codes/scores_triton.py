"""Looking scores up in Triton, and the weights that they come to."""

from __future__ import annotations

import triton
import triton.language as tl

from longspan_kernels.jit import fold, joined


@triton.jit
def look_up(
    code, table, stop, group, lane, t, T, ROW_G, R, C, code_stride_g, code_stride_p,
    P: tl.constexpr, BOOKS: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_T: tl.constexpr,
):  # fmt: skip
    """Scores [R, T] of tokens of a group: -inf where there is no such head or token, NaN where a
    code names no centroid. With BOOKS, `stop` tells of a row, ROW_G groups, which tokens are of
    which codebook, and how many there are.
    """
    size = C
    first = tl.zeros((BLOCK_T,), tl.int32)
    if BOOKS > 0:
        size = C // BOOKS
        ends = stop + group // ROW_G * BOOKS
        for book in tl.static_range(BOOKS - 1):
            first += tl.where(t >= tl.load(ends + book), size, 0)
        T = tl.load(ends + BOOKS - 1)
    z_RT = tl.zeros((BLOCK_R, BLOCK_T), tl.float32)
    there = (lane < R)[:, None] & (t < T)[None, :]
    for p in tl.static_range(P):
        code_T = tl.load(code + group * code_stride_g + p * code_stride_p + t, t < T, 0)
        row = (group * P + p) * R + lane
        at = row[:, None] * C + (first + code_T.to(tl.int32))[None, :]
        z_RT += tl.load(table + at, there & (code_T < size)[None, :], float("nan"))
    return tl.where(there, z_RT, -float("inf"))


@triton.jit
def store_scores(
    code, table, stop, score, score_stride, T, G, ROW_G, R, C, code_stride_g, code_stride_p,
    P: tl.constexpr, BOOKS: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_T: tl.constexpr,
):  # fmt: skip
    """A block's scores, a row a query head."""
    group = (tl.program_id(1) % G).to(tl.int64)
    lane = tl.program_id(1) // G * BLOCK_R + tl.arange(0, BLOCK_R)
    t = tl.program_id(0) * BLOCK_T + tl.arange(0, BLOCK_T)
    z_RT = look_up(
        code, table, stop, group, lane, t, T, ROW_G, R, C, code_stride_g, code_stride_p,
        P, BOOKS, BLOCK_R, BLOCK_T,
    )  # fmt: skip
    at = (group * R + lane)[:, None] * score_stride + t[None, :]
    tl.store(score + at, z_RT, (lane < R)[:, None] & (t < T)[None, :])


@triton.jit
def store_masses(
    code, table, stop, top, mass, BLOCKS, T, G, ROW_G, R, C, code_stride_g, code_stride_p,
    P: tl.constexpr, BOOKS: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_T: tl.constexpr,
):  # fmt: skip
    """A block's largest score and sum of exponentials, of each query head."""
    block = tl.program_id(0)
    group = (tl.program_id(1) % G).to(tl.int64)
    lane = tl.program_id(1) // G * BLOCK_R + tl.arange(0, BLOCK_R)
    t = block * BLOCK_T + tl.arange(0, BLOCK_T)
    z_RT = look_up(
        code, table, stop, group, lane, t, T, ROW_G, R, C, code_stride_g, code_stride_p,
        P, BOOKS, BLOCK_R, BLOCK_T,
    )  # fmt: skip
    nothing = tl.zeros((BLOCK_R,), tl.float32)
    _, _, most, total = fold(z_RT, nothing - float("inf"), nothing)
    at = (group * R + lane) * BLOCKS + block
    tl.store(top + at, most, lane < R)
    tl.store(mass + at, total, lane < R)


@triton.jit
def store_lse(top, mass, lse, BLOCKS, BLOCK_B: tl.constexpr):
    """The logarithm of all blocks' exponentials, of one query head."""
    row = tl.program_id(0).to(tl.int64) + tl.arange(0, 1)
    most, total = joined(top, mass, row, row >= 0, BLOCKS, 1, BLOCK_B)
    tl.store(lse + row, most + tl.log(tl.where(total == 0.0, 1.0, total)))


@triton.jit
def store_weights(
    code, table, stop, lse, score, score_stride, T, G, ROW_G, R, C, code_stride_g, code_stride_p,
    P: tl.constexpr, BOOKS: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_T: tl.constexpr,
):  # fmt: skip
    """Logarithms of a block's weights: softmax over all tokens, summed over a group's heads."""
    group = tl.program_id(1).to(tl.int64)
    t = tl.program_id(0) * BLOCK_T + tl.arange(0, BLOCK_T)
    most = tl.full((BLOCK_T,), -float("inf"), tl.float32)
    total = tl.zeros((BLOCK_T,), tl.float32)
    for first in range(0, R, BLOCK_R):
        lane = first + tl.arange(0, BLOCK_R)
        z_RT = look_up(
            code, table, stop, group, lane, t, T, ROW_G, R, C, code_stride_g, code_stride_p,
            P, BOOKS, BLOCK_R, BLOCK_T,
        )  # fmt: skip
        lse_R = tl.load(lse + group * R + lane, lane < R, 0.0)
        z_RT -= tl.where(lse_R == -float("inf"), 0.0, lse_R)[:, None]  # there is no token
        new_most = tl.maximum(most, tl.max(z_RT, 0))
        base = tl.where(new_most == -float("inf"), 0.0, new_most)
        total = total * tl.exp(most - base) + tl.sum(tl.exp(z_RT - base[None, :]), 0)
        most = new_most
    weight = most + tl.log(tl.where(total == 0.0, 1.0, total))
    tl.store(score + group * score_stride + t, weight, t < T)
