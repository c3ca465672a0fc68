"""Attention over near, cached and distant keys and values in Triton; distant ones are read over the
bus by the kernel itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl

from longspan_kernels.cached_decode.store import LAYER_BITS
from longspan_kernels.dense_decode.lists import finished, read_lists
from longspan_kernels.jit import (
    MOST_READ,
    capped,
    count_up_to,
    device_of,
    exact,
    fold,
    pieces,
    pow2,
    store_rows,
    tile_runs,
)
from longspan_kernels.types import Partial

if TYPE_CHECKING:
    from torch import Tensor

    from longspan_kernels.cached_decode.store import CachedStore
    from longspan_kernels.types import Runs

BITS = tl.constexpr(LAYER_BITS)
ENDLESS = 2**31 - 1


@triton.jit
def at_home(address, first, head, slot, N, ROW: tl.constexpr, S: tl.constexpr):
    """Address of the row of a slot in the parts of a head; ROW bytes each, a multiple of 16."""
    base = tl.load(address + head) + tl.zeros_like(slot)
    for part in tl.static_range(1, S):
        at = part * N + head
        base = tl.where(slot >= tl.load(first + at), tl.load(address + at), base)
    return base + slot * ROW


@triton.jit
def page_name(layer, head, SLOTS, slot):
    """As `owner` names the page that begins with a slot; `head` is int64."""
    return (head * 0 + layer << BITS) + head * SLOTS + slot


@triton.jit
def row_of(near, pool, address, home, hit, near_at, pool_at):
    """Pointers to the rows of a tile, wherever each is."""
    there = tl.where(hit, pool + pool_at, address.to(near.dtype))
    return tl.multiple_of(tl.where(home, there, near + near_at), (16,))


@triton.jit(do_not_specialize=["layer"])
def attend_cached(
    q, near_k, near_v, pool_k, pool_v, address, first, gap, row_of_slot, owner,
    start, end, stop, count, out, lse, scale, softcap, K, N, R, HEADS, D, SLOTS, layer,
    q_stride, k_stride_n, k_stride_t, v_stride_n, v_stride_t,
    READ: tl.constexpr, CAPPED: tl.constexpr, EXACT: tl.constexpr, PAGE: tl.constexpr,
    ROW: tl.constexpr, S: tl.constexpr,
    BLOCK_R: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_T: tl.constexpr,
):  # fmt: skip
    """One piece of the entries of one head, for up to BLOCK_R of its R query heads."""
    row = tl.program_id(0) % N
    lane = tl.program_id(0) // N * BLOCK_R + tl.arange(0, BLOCK_R)
    piece = tl.program_id(1)
    head = (row * R + lane).to(tl.int64)
    row = row.to(tl.int64)
    d = tl.arange(0, BLOCK_D)
    lane_mask = (lane < R)[:, None] & (d < D)[None, :]
    q_RD = tl.load(q + head[:, None] * q_stride + d[None, :], lane_mask, 0.0)
    if EXACT:
        q_RD = q_RD.to(tl.float32)
    low, high = tl.load(gap + row), tl.load(gap + N + row)
    runs = tl.load(count + row)
    total = tl.load(count + N + row)
    chunk = tl.cdiv(tl.cdiv(total, tl.num_programs(1)), BLOCK_T) * BLOCK_T
    top = tl.full((BLOCK_R,), -float("inf"), tl.float32)
    mass = tl.zeros((BLOCK_R,), tl.float32)
    acc = tl.zeros((BLOCK_R, BLOCK_D), tl.float32)
    current = count_up_to(end + row * K, piece * chunk, runs, READ)
    for at in range(piece * chunk, tl.minimum(piece * chunk + chunk, total), BLOCK_T):
        place = at + tl.arange(0, BLOCK_T)
        live = place < total
        run, current = tile_runs(end + row * K, at, current, runs, BLOCK_T)
        run += row * K
        slot = tl.load(stop + run, live, 0) - (tl.load(end + run, live, 0) - place)
        begin = tl.load(start + run, live, 0)
        home = live & (slot >= low) & (slot < high)
        page = begin + (slot - begin) // PAGE * PAGE
        name = page_name(layer, row, SLOTS, page)
        cached = tl.load(row_of_slot + row * SLOTS + page, home, -1)
        owned = tl.load(owner + cached // PAGE, home & (cached >= 0), -1)
        hit = home & (owned == name)
        near_at = tl.where(slot < low, slot, slot - (high - low)).to(tl.int64)
        pool_at = (cached + slot - page).to(tl.int64) * D
        slot = slot.to(tl.int64)
        row_mask = live[:, None] & (d < D)[None, :]
        k_home = at_home(address, first, row, slot, N, ROW, S)
        k_at = row * k_stride_n + near_at * k_stride_t
        k_T = row_of(near_k, pool_k, k_home, home, hit, k_at, pool_at)
        k_TD = tl.load(k_T[:, None] + d[None, :], row_mask, 0).to(q_RD.dtype)
        score = tl.dot(q_RD, tl.trans(k_TD), input_precision="ieee") * scale
        score = tl.where(live[None, :], capped(score, softcap, CAPPED), -float("inf"))
        fade, weight, top, mass = fold(score, top, mass)
        v_home = at_home(address + S * N, first, row, slot, N, ROW, S)
        v_at = row * v_stride_n + near_at * v_stride_t
        v_T = row_of(near_v, pool_v, v_home, home, hit, v_at, pool_at)
        v_TD = tl.load(v_T[:, None] + d[None, :], row_mask, 0).to(q_RD.dtype)
        acc = acc * fade[:, None]
        acc += tl.dot(weight.to(q_RD.dtype), v_TD, input_precision="ieee")
    store_rows(out, lse, piece.to(tl.int64) * HEADS + head, lane < R, acc, top, mass, D, BLOCK_D)


@triton.jit(do_not_specialize=["layer"])
def admit_page(
    pool_k, pool_v, address, first, row_of_slot, owner, admitted, count, A, N, D, SLOTS, layer,
    PAGE: tl.constexpr, ROW: tl.constexpr, S: tl.constexpr, BLOCK_S: tl.constexpr,
    BLOCK_D: tl.constexpr,
):  # fmt: skip
    """One page of a row's list, which is read where it lies."""
    number, row = tl.program_id(0), tl.program_id(1)
    if number < tl.load(count + row):
        at = admitted + (row.to(tl.int64) * A + number) * 4
        head, begin = tl.load(at).to(tl.int64), tl.load(at + 1)
        size, into = tl.load(at + 2), tl.load(at + 3)
        s, d = tl.arange(0, BLOCK_S), tl.arange(0, BLOCK_D)
        mask = (s < size)[:, None] & (d < D)[None, :]
        slot = (begin + s).to(tl.int64)
        to = (into + s).to(tl.int64)[:, None] * D + d[None, :]
        k_home = at_home(address, first, head, slot, N, ROW, S)
        k_S = tl.multiple_of(k_home.to(pool_k.dtype), (16,))
        tl.store(pool_k + to, tl.load(k_S[:, None] + d[None, :], mask, 0), mask)
        v_home = at_home(address + S * N, first, head, slot, N, ROW, S)
        v_S = tl.multiple_of(v_home.to(pool_v.dtype), (16,))
        tl.store(pool_v + to, tl.load(v_S[:, None] + d[None, :], mask, 0), mask)
        tl.store(row_of_slot + head * SLOTS + begin, into)
        tl.store(owner + into // PAGE, page_name(layer, head, SLOTS, begin))


def cached_decode(
    q_XD: Tensor,
    store: CachedStore,
    runs: Runs,
    *,
    scale: float,
    softcap: float | None,
    expected: int | None,
    stacked: bool,
) -> Partial:
    """As the reference."""
    (heads, width), (rows, _, _) = q_XD.shape, store.near_keys_NCD.shape
    a_row = heads // rows
    block_r = min(pow2(a_row, 16), 32)
    programs = rows * -(-a_row // block_r)
    exactly = exact(q_XD, store.near_keys_NCD, store.near_values_NCD)
    block_t = 32 if exactly or width > 128 else 64
    with device_of(q_XD):
        lists = read_lists(runs, ENDLESS, 0, q_XD, begins=True)
        cuts = pieces(programs, expected or lists.expected, 2 * block_t, q_XD.device)
        out = torch.empty(cuts, heads, width, dtype=torch.float32, device=q_XD.device)
        lse = torch.empty(cuts, heads, dtype=torch.float32, device=q_XD.device)
        attend_cached[(programs, cuts)](
            q_XD, store.near_keys_NCD, store.near_values_NCD, store.pool.keys_VD,
            store.pool.values_VD, store.address_2SN, store.first_SN, store.gap_2N,
            store.row_of_NT, store.pool.owner_P, *lists[:4], out, lse,
            scale, softcap or 0.0, lists.width, rows, a_row, heads, width, store.row_of_NT.shape[1],
            store.layer, q_XD.stride(0), *store.near_keys_NCD.stride()[:2],
            *store.near_values_NCD.stride()[:2],
            READ=min(pow2(lists.width, 16), MOST_READ), CAPPED=softcap is not None, EXACT=exactly,
            PAGE=store.pool.page, ROW=width * store.near_keys_NCD.itemsize, S=len(store.first_SN),
            BLOCK_R=block_r, BLOCK_D=pow2(width, 16), BLOCK_T=block_t,
            num_warps=8 if exactly else 4,
        )  # fmt: skip
    return finished(Partial(out, lse), stacked)


def admit_pages(store: CachedStore, admitted_BA4: Tensor, count_B: Tensor) -> None:
    """As the reference. The lists are read over the bus."""
    rows, most, _ = admitted_BA4.shape
    if not most:
        return
    pool, width = store.pool, store.pool.keys_VD.shape[1]
    with device_of(pool.keys_VD):
        admit_page[(most, rows)](
            pool.keys_VD, pool.values_VD, store.address_2SN, store.first_SN,
            store.row_of_NT, pool.owner_P, admitted_BA4, count_B, most,
            len(store.gap_2N[0]), width, store.row_of_NT.shape[1], store.layer,
            PAGE=pool.page, ROW=width * pool.keys_VD.itemsize, S=len(store.first_SN),
            BLOCK_S=pow2(pool.page), BLOCK_D=pow2(width), num_warps=1,
        )  # fmt: skip
