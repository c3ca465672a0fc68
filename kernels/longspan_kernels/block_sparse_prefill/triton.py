"""Prefill attention to chosen blocks and columns in Triton."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl

from longspan_kernels.jit import capped, device_of, exact, pow2
from longspan_kernels.types import Partial

if TYPE_CHECKING:
    from torch import Tensor


@triton.jit
def attend_tile(
    q_MD, keys, values, token, visible, top, mass, acc, scale, softcap, D,
    k_stride_t, v_stride_t, CAPPED: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Go on from (top, mass, acc) with the entries `token`, of which `visible` [M, N] count."""
    d = tl.arange(0, BLOCK_D)
    needed = (tl.max(visible.to(tl.int32), 0) > 0)[:, None] & (d < D)[None, :]
    at = token.to(tl.int64)[:, None]
    k_ND = tl.load(keys + at * k_stride_t + d[None, :], needed, 0).to(q_MD.dtype)
    score = tl.dot(q_MD, tl.trans(k_ND), input_precision="ieee") * scale
    score = tl.where(visible, capped(score, softcap, CAPPED), -float("inf"))
    new_top = tl.maximum(top, tl.max(score, 1))
    base = tl.where(new_top == -float("inf"), 0.0, new_top)
    fade, weight = tl.exp(top - base), tl.exp(score - base[:, None])
    v_ND = tl.load(values + at * v_stride_t + d[None, :], needed, 0).to(q_MD.dtype)
    acc = acc * fade[:, None] + tl.dot(weight.to(q_MD.dtype), v_ND, input_precision="ieee")
    return new_top, mass * fade + tl.sum(weight, 1), acc


@triton.jit
def attend_blocks(
    q, keys, values, blocks, column, column_count, out, lse, scale, softcap, Q, T, R, D, X, Y,
    BLOCK, TILES, q_stride_h, q_stride_q, k_stride_g, k_stride_t, v_stride_g, v_stride_t,
    CAUSAL: tl.constexpr, COLUMNS: tl.constexpr, CAPPED: tl.constexpr, EXACT: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """A tile of positions, which lie in one block, of one head: blocks first, then what columns
    add outside of them.
    """
    x, head = tl.program_id(0) // TILES, tl.program_id(1).to(tl.int64)
    m = tl.program_id(0) % TILES * BLOCK_M + tl.arange(0, BLOCK_M)
    row, d, n = x * BLOCK + m, tl.arange(0, BLOCK_D), tl.arange(0, BLOCK_N)
    live = (m < BLOCK) & (row < Q)
    last = tl.where(live, T - 1, -1)
    if CAUSAL:
        last = tl.where(live, row + T - Q, -1)
    limit = tl.max(last, 0) + 1
    row_mask = live[:, None] & (d < D)[None, :]
    q_at = head * q_stride_h + row.to(tl.int64)[:, None] * q_stride_q + d[None, :]
    q_MD = tl.load(q + q_at, row_mask, 0.0)
    if EXACT:
        q_MD = q_MD.to(tl.float32)
    keys += head // R * k_stride_g
    values += head // R * v_stride_g
    chosen = blocks + (head * X + x) * Y
    top = tl.full((BLOCK_M,), -float("inf"), tl.float32)
    mass = tl.zeros((BLOCK_M,), tl.float32)
    acc = tl.zeros((BLOCK_M, BLOCK_D), tl.float32)
    for y in range(0, tl.cdiv(limit, BLOCK)):
        if tl.load(chosen + y) != 0:
            for first in range(0, BLOCK, BLOCK_N):
                token = y * BLOCK + first + n
                inside = (first + n < BLOCK) & (token < T)
                visible = inside[None, :] & (token[None, :] <= last[:, None])
                top, mass, acc = attend_tile(
                    q_MD, keys, values, token, visible, top, mass, acc, scale, softcap, D,
                    k_stride_t, v_stride_t, CAPPED, BLOCK_D,
                )  # fmt: skip
    if COLUMNS:
        named = tl.load(column_count + head)
        for first in range(0, named, BLOCK_N):
            inside = first + n < named
            token = tl.load(column + head * T + first + n, inside, 0)
            inside = inside & (tl.load(chosen + token // BLOCK, inside, 0) == 0)
            visible = inside[None, :] & (token[None, :] <= last[:, None])
            top, mass, acc = attend_tile(
                q_MD, keys, values, token, visible, top, mass, acc, scale, softcap, D,
                k_stride_t, v_stride_t, CAPPED, BLOCK_D,
            )  # fmt: skip
    empty = mass == 0.0
    mass = tl.where(empty, 1.0, mass)
    at = head * Q + row
    tl.store(out + at[:, None] * D + d[None, :], acc / mass[:, None], row_mask)
    tl.store(lse + at, tl.where(empty, -float("inf"), top + tl.log(mass)), live)


def block_sparse_prefill(
    q_HQD: Tensor,
    keys_GTD: Tensor,
    values_GTD: Tensor,
    blocks_HXY: Tensor,
    *,
    columns_HT: Tensor | None,
    block: int,
    scale: float,
    softcap: float | None,
    causal: bool,
) -> Partial:
    """As the reference; a column costs as much as an entry of a block, wherever it stands."""
    (heads, positions, width), (groups, entries, _) = q_HQD.shape, keys_GTD.shape
    out = torch.empty(heads, positions, width, dtype=torch.float32, device=q_HQD.device)
    lse = torch.empty(heads, positions, dtype=torch.float32, device=q_HQD.device)
    column, column_count = blocks_HXY, blocks_HXY
    if columns_HT is not None:  # the named entries of each head, ascending, come first
        column = columns_HT.int().argsort(dim=1, descending=True, stable=True).int()
        column_count = columns_HT.sum(1).int()
    exactly = exact(q_HQD, keys_GTD, values_GTD)
    tile = min(pow2(block, 16), 32 if exactly or width > 128 else 64)
    tiles = triton.cdiv(block, tile)
    _, blocks_q, blocks_t = blocks_HXY.shape
    if not positions:
        return Partial(out, lse)
    with device_of(q_HQD):
        attend_blocks[(blocks_q * tiles, heads)](
            q_HQD, keys_GTD, values_GTD, blocks_HXY.contiguous().view(torch.uint8), column,
            column_count, out, lse, scale, softcap or 0.0, positions, entries, heads // groups,
            width, blocks_q, blocks_t, block, tiles, *q_HQD.stride()[:2], *keys_GTD.stride()[:2],
            *values_GTD.stride()[:2], CAUSAL=causal, COLUMNS=columns_HT is not None,
            CAPPED=softcap is not None, EXACT=exactly, BLOCK_M=tile, BLOCK_N=tile,
            BLOCK_D=pow2(width, 16), num_warps=8 if exactly else 4,
        )  # fmt: skip
    return Partial(out, lse)
