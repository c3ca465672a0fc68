"""Places of a step in Triton, a launch each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl

from longspan_kernels.jit import device_of, pow2
from longspan_kernels.types import Runs

if TYPE_CHECKING:
    from torch import Tensor

    from longspan_kernels.types import Chosen


@triton.jit
def store_row(
    keys, values, k, v, at, skipped, G, D, ks_n, ks_t, vs_n, vs_t, k_b, k_g, v_b, v_g,
    SKIPS: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """One head of one row."""
    n = tl.program_id(0)
    row, group = n // G, n % G
    slot = tl.load(at + row)
    if SKIPS:
        slot -= tl.load(skipped + row)
    d = tl.arange(0, BLOCK_D)
    n = n.to(tl.int64)
    new_k = tl.load(k + row * k_b + group * k_g + d, d < D, 0)
    new_v = tl.load(v + row * v_b + group * v_g + d, d < D, 0)
    tl.store(keys + n * ks_n + slot * ks_t + d, new_k.to(keys.dtype.element_ty), d < D)
    tl.store(values + n * vs_n + slot * vs_t + d, new_v.to(values.dtype.element_ty), d < D)


@triton.jit
def list_row(
    at, indexed, ids, counts, starts, sizes, start, size, count, G, B, K, C,
    CHOSEN: tl.constexpr, CLUSTERS: tl.constexpr, LEAD: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The runs of one head: LEAD zones (two or none), then CLUSTERS, or slots by themselves."""
    block, n = tl.program_id(0), tl.program_id(1)
    row = n // G
    n = n.to(tl.int64)
    first = tl.zeros((), tl.int64)
    stop = tl.zeros((), tl.int64)
    live = tl.zeros((), tl.int32)
    if CHOSEN:
        first, stop = tl.load(indexed + row), tl.load(indexed + B + row)
        live = tl.load(counts + n)
    k = block * BLOCK + tl.arange(0, BLOCK) - LEAD
    begin = tl.where(k == -1, stop, 0)
    length = tl.where(k == -1, tl.load(at + row) + 1 - stop, first)
    if CHOSEN:
        mine = (k >= 0) & (k < live)
        c = tl.load(ids + n * K + k, mine, 0)
        if CLUSTERS:
            begin = tl.where(k < 0, begin, tl.load(starts + n * C + c, mine, 0))
            length = tl.where(k < 0, length, tl.load(sizes + n * C + c, mine, 0))
        else:
            begin = tl.where(k < 0, begin, c)
            length = tl.where(k < 0, length, 1)
    out = n * (K + LEAD) + k + LEAD
    tl.store(start + out, begin.to(tl.int32), k < K)
    tl.store(size + out, length.to(tl.int32), k < K)
    if block == 0:
        tl.store(count + n, live + LEAD)


def append_token(
    keys_NCD: Tensor,
    values_NCD: Tensor,
    k_BGD: Tensor,
    v_BGD: Tensor,
    at_B: Tensor,
    skipped_B: Tensor | None,
) -> None:
    """As the reference."""
    heads, _, width = keys_NCD.shape
    with device_of(keys_NCD):
        store_row[(heads,)](
            keys_NCD, values_NCD, k_BGD, v_BGD, at_B, at_B if skipped_B is None else skipped_B,
            k_BGD.shape[1], width, *keys_NCD.stride()[:2], *values_NCD.stride()[:2],
            *k_BGD.stride()[:2], *v_BGD.stride()[:2],
            SKIPS=skipped_B is not None, BLOCK_D=pow2(width), num_warps=1,
        )  # fmt: skip


def zone_runs(at_B: Tensor, heads: int, chosen: Chosen | None, zones: bool) -> Runs:
    """As the reference."""
    lead = 2 if zones else 0
    wide, sizes_NC = (0, None) if chosen is None else (chosen.id_NK.shape[1], chosen.size_NC)
    start_NK = torch.empty(heads, wide + lead, dtype=torch.int32, device=at_B.device)
    size_NK = torch.empty_like(start_NK)
    count_N = torch.empty(heads, dtype=torch.int32, device=at_B.device)
    given = [at_B if x is None else x.contiguous() for x in chosen or (None,) * 5]
    block = min(pow2(wide + lead), 256)
    with device_of(at_B):
        list_row[(triton.cdiv(wide + lead, block), heads)](
            at_B, *given, start_NK, size_NK, count_N, heads // len(at_B), len(at_B), wide,
            0 if sizes_NC is None else sizes_NC.shape[1], CHOSEN=chosen is not None,
            CLUSTERS=sizes_NC is not None, LEAD=lead, BLOCK=block, num_warps=1,
        )  # fmt: skip
    return Runs(start_NK, size_NK, count_N)
