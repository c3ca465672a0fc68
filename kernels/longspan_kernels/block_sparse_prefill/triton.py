"""Prefill attention to chosen blocks and columns in Triton."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl

from longspan_kernels.jit import MOST_READ, capped, count_up_to, device_of, exact, pow2
from longspan_kernels.types import Partial

if TYPE_CHECKING:
    from torch import Tensor

LOG2E = tl.constexpr(1.4426950408889634)


@triton.jit
def seen(x, Q, T, BLOCK, CAUSAL: tl.constexpr):
    """How many entries the first position of block x sees, and how many its last."""
    least, most = T, T
    if CAUSAL:
        least = x * BLOCK + T - Q + 1
        most = tl.minimum((x + 1) * BLOCK, Q) + T - Q
    return least, most


@triton.jit
def list_chosen(
    chosen, found, count, rows, X, Y, Q, T, BLOCK, CAUSAL: tl.constexpr, READ: tl.constexpr
):
    """The places of a row's bytes that are set, ascending, and how many they are; before it, how
    many of them are blocks of entries that every position sees.
    """
    row = tl.program_id(0).to(tl.int64)
    least, most = seen(row % X, Q, T, BLOCK, CAUSAL)
    whole = tl.zeros((), tl.int32)
    before = tl.zeros((), tl.int32)
    for first in range(0, tl.cdiv(most, BLOCK), READ):
        y = first + tl.arange(0, READ)
        wanted = tl.load(chosen + row * Y + y, y * BLOCK < most, 0) != 0
        place = before + tl.cumsum(wanted.to(tl.int32), 0) - 1
        tl.store(found + row * Y + place, y, wanted)
        before += tl.sum(wanted.to(tl.int32), 0)
        whole += tl.sum((wanted & (y < least // BLOCK)).to(tl.int32), 0)
    tl.store(count + row, whole)
    tl.store(count + rows + row, before)


@triton.jit
def attend_tile(
    q_MD, k_at, v_at, loaded, visible, top, mass, acc, scale, softcap,
    MASKED: tl.constexpr, WIDE: tl.constexpr, CAPPED: tl.constexpr,
):  # fmt: skip
    """Go on from (top, mass, acc), which count in powers of two, with the entries at `k_at` and
    `v_at`: all of them, or, MASKED, those that are `visible` [M, N].
    """
    if MASKED or WIDE:
        k_ND, v_ND = tl.load(k_at, loaded, 0), tl.load(v_at, loaded, 0)
    else:
        k_ND, v_ND = tl.load(k_at), tl.load(v_at)
    score = tl.dot(q_MD, tl.trans(k_ND.to(q_MD.dtype)), input_precision="ieee")
    if CAPPED:
        score = capped(score * scale, softcap, CAPPED) * LOG2E
    else:
        score *= scale * LOG2E
    if MASKED:
        score = tl.where(visible, score, -float("inf"))
    new_top = tl.maximum(top, tl.max(score, 1))
    base = tl.where(new_top == -float("inf"), 0.0, new_top)
    fade, weight = tl.exp2(top - base), tl.exp2(score - base[:, None])
    mass = mass * fade + tl.sum(weight, 1)
    acc = acc * fade[:, None]
    acc = tl.dot(weight.to(q_MD.dtype), v_ND.to(q_MD.dtype), acc, input_precision="ieee")
    return new_top, mass, acc


@triton.jit
def attend_blocks(
    q, keys, values, found, counts, column, column_count, chosen, out, lse, scale, softcap, Q, T,
    R, X, Y, TILES, q_stride_h, q_stride_q, k_stride_g, k_stride_t, v_stride_g, v_stride_t,
    D: tl.constexpr, BLOCK: tl.constexpr, STEPS: tl.constexpr,
    CAUSAL: tl.constexpr, COLUMNS: tl.constexpr, CAPPED: tl.constexpr, EXACT: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, READ: tl.constexpr,
):  # fmt: skip
    """A tile of positions, which lie in one block, of one head: blocks that all of them see, those
    that some see, then what columns add outside of blocks.
    """
    x, head = tl.program_id(0) // TILES, tl.program_id(1).to(tl.int64)
    m = tl.program_id(0) % TILES * BLOCK_M + tl.arange(0, BLOCK_M)
    position, d, n = x * BLOCK + m, tl.arange(0, BLOCK_D), tl.arange(0, BLOCK_N)
    live = (m < BLOCK) & (position < Q)
    last = tl.where(live, T - 1, -1)
    if CAUSAL:
        last = tl.where(live, position + T - Q, -1)
    row_mask = live[:, None] & (d < D)[None, :]
    q_at = head * q_stride_h + position.to(tl.int64)[:, None] * q_stride_q + d[None, :]
    q_MD = tl.load(q + q_at, row_mask, 0.0)
    if EXACT:
        q_MD = q_MD.to(tl.float32)
    keys += head // R * k_stride_g
    values += head // R * v_stride_g
    row = head * X + x
    found += row * Y
    whole, count = tl.load(counts + row), tl.load(counts + tl.num_programs(1) * X + row)
    k_off = n[:, None] * k_stride_t + d[None, :]
    v_off = n[:, None] * v_stride_t + d[None, :]
    top = tl.full((BLOCK_M,), -float("inf"), tl.float32)
    mass = tl.zeros((BLOCK_M,), tl.float32)
    acc = tl.zeros((BLOCK_M, BLOCK_D), tl.float32)
    if BLOCK % BLOCK_N != 0:
        whole = 0
    wide = (d < D)[None, :] & (n >= 0)[:, None]
    for step in range(0, whole * STEPS):
        first = tl.load(found + step // STEPS).to(tl.int64) * BLOCK + step % STEPS * BLOCK_N
        top, mass, acc = attend_tile(
            q_MD, keys + first * k_stride_t + k_off, values + first * v_stride_t + v_off, wide,
            wide, top, mass, acc, scale, softcap, False, D != BLOCK_D, CAPPED,
        )  # fmt: skip
    for step in range(whole * STEPS, count * STEPS):
        first = tl.load(found + step // STEPS).to(tl.int64) * BLOCK + step % STEPS * BLOCK_N
        token = first + n
        inside = (step % STEPS * BLOCK_N + n < BLOCK) & (token < T)
        top, mass, acc = attend_tile(
            q_MD, keys + first * k_stride_t + k_off, values + first * v_stride_t + v_off,
            inside[:, None] & (d < D)[None, :],
            inside[None, :] & (token[None, :] <= last[:, None]),
            top, mass, acc, scale, softcap, True, D != BLOCK_D, CAPPED,
        )  # fmt: skip
    if COLUMNS:
        _, most = seen(x, Q, T, BLOCK, CAUSAL)
        column += head * T
        named = count_up_to(column, most - 1, tl.load(column_count + head), READ)
        for begin in range(0, named, BLOCK_N):
            inside = begin + n < named
            token = tl.load(column + begin + n, inside, 0).to(tl.int64)
            alone = tl.load(chosen + row * Y + token // BLOCK, inside, 1) == 0
            top, mass, acc = attend_tile(
                q_MD, keys + token[:, None] * k_stride_t + d[None, :],
                values + token[:, None] * v_stride_t + d[None, :],
                inside[:, None] & (d < D)[None, :],
                alone[None, :] & (token[None, :] <= last[:, None]),
                top, mass, acc, scale, softcap, True, D != BLOCK_D, CAPPED,
            )  # fmt: skip
    empty = mass == 0.0
    mass = tl.where(empty, 1.0, mass)
    at = head * Q + position
    tl.store(out + at[:, None] * D + d[None, :], acc / mass[:, None], row_mask)
    total = (top + tl.log2(mass)) / LOG2E
    tl.store(lse + at, tl.where(empty, -float("inf"), total), live)


def listed(chosen_NY: Tensor, shape: tuple[int, int, int, int], causal: bool) -> tuple[Tensor, ...]:
    """What `list_chosen` says of rows of bytes: places [N, Y] and counts [2, N]. `shape`: rows a
    head, positions, entries, and entries a place.
    """
    rows, places = chosen_NY.shape
    kind = torch.int16 if places < 1 << 15 else torch.int32
    found_NY = torch.empty(rows, places, dtype=kind, device=chosen_NY.device)
    count_2N = torch.empty(2, rows, dtype=torch.int32, device=chosen_NY.device)
    x, positions, entries, block = shape
    list_chosen[(rows,)](
        chosen_NY, found_NY, count_2N, rows, x, places, positions, entries, block, CAUSAL=causal,
        READ=min(pow2(places, 16), 2048),
    )  # fmt: skip
    return found_NY, count_2N


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
    if not positions:
        return Partial(out, lse)
    exactly = exact(q_HQD, keys_GTD, values_GTD)
    _, blocks_q, blocks_t = blocks_HXY.shape
    tile_m = min(pow2(block, 16), 32 if exactly else 64)
    tile_n = min(pow2(block, 16), 32 if exactly or width > 128 else 64)
    tiles = triton.cdiv(block, tile_m)
    with device_of(q_HQD):
        chosen = blocks_HXY.contiguous().view(torch.uint8)
        shape = blocks_q, positions, entries, block
        found, counts = listed(chosen.view(-1, blocks_t), shape, causal)
        column, column_count = found, counts
        if columns_HT is not None:
            named = columns_HT.contiguous().view(torch.uint8)
            column, counts_2H = listed(named, (1, positions, entries, 1), False)
            column_count = counts_2H[1]
        attend_blocks[(blocks_q * tiles, heads)](
            q_HQD, keys_GTD, values_GTD, found, counts, column, column_count, chosen, out, lse,
            scale, softcap or 0.0, positions, entries, heads // groups, blocks_q, blocks_t, tiles,
            *q_HQD.stride()[:2], *keys_GTD.stride()[:2], *values_GTD.stride()[:2],
            D=width, BLOCK=block, STEPS=triton.cdiv(block, tile_n), CAUSAL=causal,
            COLUMNS=columns_HT is not None, CAPPED=softcap is not None, EXACT=exactly,
            BLOCK_M=tile_m, BLOCK_N=tile_n, BLOCK_D=pow2(width, 16),
            READ=min(pow2(entries, 16), MOST_READ), num_warps=8 if exactly else 4, num_stages=3,
        )  # fmt: skip
    return Partial(out, lse)
