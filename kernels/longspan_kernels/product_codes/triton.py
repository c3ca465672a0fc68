"""Product quantisation in Triton: the search. Scores of single heads are never stored."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import torch
import triton
import triton.language as tl

from longspan_kernels.jit import device_of, fold, joined, pow2
from longspan_kernels.product_codes.tables_triton import table_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from longspan_kernels.types import Coded, Sharing

TILE, MOST_TOKENS, MOST_LANES, PART_BLOCK = 4096, 2048, 16, 256
"""Look-ups a program has at once, of how many tokens and heads at most; blocks whose masses it
adds at once."""


@triton.jit
def look_up(
    code, table, group, lane, t, T, R, C, code_stride_g, code_stride_p, P: tl.constexpr,
    BLOCK_R: tl.constexpr, BLOCK_T: tl.constexpr,
):  # fmt: skip
    """Scores [R, T] of tokens of a group: -inf where there is no such head or token, NaN where a
    code names no centroid.
    """
    z_RT = tl.zeros((BLOCK_R, BLOCK_T), tl.float32)
    for p in tl.static_range(P):
        code_T = tl.load(code + group * code_stride_g + p * code_stride_p + t, t < T, 0)
        row = (group * P + p) * R + lane
        at = row[:, None] * C + code_T.to(tl.int32)[None, :]
        known = (lane < R)[:, None] & (code_T < C)[None, :]
        z_RT += tl.load(table + at, known, float("nan"))
    return tl.where((lane < R)[:, None] & (t < T)[None, :], z_RT, -float("inf"))


@triton.jit
def store_scores(
    code, table, score, score_stride, T, G, R, C, code_stride_g, code_stride_p, P: tl.constexpr,
    BLOCK_R: tl.constexpr, BLOCK_T: tl.constexpr,
):  # fmt: skip
    """A block's scores, a row a query head."""
    group = (tl.program_id(1) % G).to(tl.int64)
    lane = tl.program_id(1) // G * BLOCK_R + tl.arange(0, BLOCK_R)
    t = tl.program_id(0) * BLOCK_T + tl.arange(0, BLOCK_T)
    z_RT = look_up(
        code, table, group, lane, t, T, R, C, code_stride_g, code_stride_p, P, BLOCK_R, BLOCK_T
    )
    at = (group * R + lane)[:, None] * score_stride + t[None, :]
    tl.store(score + at, z_RT, (lane < R)[:, None] & (t < T)[None, :])


@triton.jit
def store_masses(
    code, table, top, mass, BLOCKS, T, G, R, C, code_stride_g, code_stride_p, P: tl.constexpr,
    BLOCK_R: tl.constexpr, BLOCK_T: tl.constexpr,
):  # fmt: skip
    """A block's largest score and sum of exponentials, of each query head."""
    block = tl.program_id(0)
    group = (tl.program_id(1) % G).to(tl.int64)
    lane = tl.program_id(1) // G * BLOCK_R + tl.arange(0, BLOCK_R)
    t = block * BLOCK_T + tl.arange(0, BLOCK_T)
    z_RT = look_up(
        code, table, group, lane, t, T, R, C, code_stride_g, code_stride_p, P, BLOCK_R, BLOCK_T
    )
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
    tl.store(lse + row, most + tl.log(total))


@triton.jit
def store_weights(
    code, table, lse, score, score_stride, T, G, R, C, code_stride_g, code_stride_p,
    P: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_T: tl.constexpr,
):  # fmt: skip
    """Logarithms of a block's weights: softmax over all tokens, summed over a group's heads."""
    group = tl.program_id(1).to(tl.int64)
    t = tl.program_id(0) * BLOCK_T + tl.arange(0, BLOCK_T)
    most = tl.full((BLOCK_T,), -float("inf"), tl.float32)
    total = tl.zeros((BLOCK_T,), tl.float32)
    for first in range(0, R, BLOCK_R):
        lane = first + tl.arange(0, BLOCK_R)
        z_RT = look_up(
            code, table, group, lane, t, T, R, C, code_stride_g, code_stride_p, P, BLOCK_R, BLOCK_T
        )
        z_RT -= tl.load(lse + group * R + lane, lane < R, 0.0)[:, None]
        new_most = tl.maximum(most, tl.max(z_RT, 0))
        base = tl.where(new_most == -float("inf"), 0.0, new_most)
        total = total * tl.exp(most - base) + tl.sum(tl.exp(z_RT - base[None, :]), 0)
        most = new_most
    weight = most + tl.log(tl.where(t < T, total, 1.0))
    tl.store(score + group * score_stride + t, weight, t < T)


def best_tokens(
    q_HD: Tensor, coded: Sequence[Coded], wanted: int, scale: float, share: Sharing
) -> Tensor:
    """As the reference, but in no order. It does not look for queries that are not finite, nor for
    codes that name no centroid, which would stop the device: weights are NaN there.
    """
    heads, groups = len(q_HD), len(coded[0].code_GPT)
    alone = share == "query_head" or heads == groups  # then weights are ordered as scores are
    tokens = [each.code_GPT.shape[2] for each in coded]
    rows = heads if alone else groups
    score_NT = torch.empty(rows, sum(tokens), dtype=torch.float32, device=q_HD.device)
    with device_of(q_HD):
        stretches = [
            Stretch(each.code_GPT, table_of(q_HD, each.centroids_GPCE, scale), some_NT)
            for each, some_NT in zip(coded, score_NT.split(tokens, dim=1), strict=True)
        ]
        (write_scores if alone else write_weights)(stretches)
    return score_NT.topk(wanted, sorted=False).indices.int()


class Stretch(NamedTuple):
    """Tokens of one codebook, and where their scores or weights go."""

    code_GPT: Tensor
    table_GPRC: Tensor
    score_NT: Tensor

    @property
    def sizes(self) -> tuple[int, ...]:
        """As the kernels take them."""
        groups, _, a_group, clusters = self.table_GPRC.shape
        return (self.code_GPT.shape[2], groups, a_group, clusters, *self.code_GPT.stride()[:2])

    @property
    def tile(self) -> dict[str, int]:
        """Parts, heads and tokens that a program looks up at once, and its warps: look-ups wait."""
        _, parts, a_group, _ = self.table_GPRC.shape
        block_r = min(pow2(a_group), MOST_LANES)
        block_t = min(TILE // block_r, MOST_TOKENS)
        return {"P": parts, "BLOCK_R": block_r, "BLOCK_T": block_t, "num_warps": 8}

    @property
    def blocks(self) -> int:
        """Of tokens."""
        return int(triton.cdiv(self.code_GPT.shape[2], self.tile["BLOCK_T"]))

    @property
    def rows(self) -> int:
        """Blocks of heads, of all groups."""
        groups, _, a_group, _ = self.table_GPRC.shape
        return groups * int(triton.cdiv(a_group, self.tile["BLOCK_R"]))


def write_scores(stretches: Sequence[Stretch]) -> None:
    """The scores of every query head."""
    for each in stretches:
        store_scores[(each.blocks, each.rows)](
            each.code_GPT, each.table_GPRC, each.score_NT, each.score_NT.stride(0),
            *each.sizes, **each.tile,
        )  # fmt: skip


def write_weights(stretches: Sequence[Stretch]) -> None:
    """The logarithms of the weights of every group; all masses first."""
    blocks = [each.blocks for each in stretches]
    groups, _, a_group, _ = stretches[0].table_GPRC.shape
    floats = partial(torch.empty, dtype=torch.float32, device=stretches[0].score_NT.device)
    heads, number = groups * a_group, sum(blocks)
    top_HB, mass_HB, lse_H = floats(heads, number), floats(heads, number), floats(heads)
    some = zip(stretches, top_HB.split(blocks, dim=1), mass_HB.split(blocks, dim=1), strict=True)
    for each, *parts in some:
        store_masses[(each.blocks, each.rows)](
            each.code_GPT, each.table_GPRC, *parts, number, *each.sizes, **each.tile
        )
    store_lse[(heads,)](top_HB, mass_HB, lse_H, number, BLOCK_B=PART_BLOCK, num_warps=1)
    for each in stretches:
        store_weights[(each.blocks, groups)](
            each.code_GPT, each.table_GPRC, lse_H, each.score_NT, each.score_NT.stride(0),
            *each.sizes, **each.tile,
        )  # fmt: skip
