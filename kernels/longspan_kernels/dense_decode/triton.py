"""Decode attention in Triton, cut over the entries and merged; `sparse_decode` shares it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl

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
from longspan_kernels.sampled_decode.chance import log_weight, unit
from longspan_kernels.types import Partial

if TYPE_CHECKING:
    from torch import Tensor

    from longspan_kernels.types import Runs, Sampling


@triton.jit
def attend_piece(
    q, keys, values, key_scale, value_scale, bias, mean, norm, start, end, stop, count, out, lse,
    scale, softcap, T, first, K, N, RATIO, R, HEADS, D,
    q_stride, k_stride_g, k_stride_t, v_stride_g, v_stride_t, ks_stride, vs_stride, bias_stride,
    norm_stride, READS: tl.constexpr, READ: tl.constexpr, CAPPED: tl.constexpr,
    KEY_SCALED: tl.constexpr, VALUE_SCALED: tl.constexpr, BIASED: tl.constexpr,
    BITS: tl.constexpr, TABLES: tl.constexpr, EXACT: tl.constexpr,
    BLOCK_R: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_T: tl.constexpr,
):  # fmt: skip
    """One piece of the entries of one selector row, for up to BLOCK_R of its R query heads."""
    row = tl.program_id(0) % N
    lane = tl.program_id(0) // N * BLOCK_R + tl.arange(0, BLOCK_R)
    piece = tl.program_id(1)
    head = (row * R + lane).to(tl.int64)
    group = (row // RATIO).to(tl.int64)
    row = row.to(tl.int64)
    d = tl.arange(0, BLOCK_D)
    lane_mask = (lane < R)[:, None] & (d < D)[None, :]
    q_RD = tl.load(q + head[:, None] * q_stride + d[None, :], lane_mask, 0.0)
    if EXACT:
        q_RD = q_RD.to(tl.float32)
    if TABLES:  # a row serves one query head
        mean_D = tl.load(mean + group * D + d, d < D, 0.0)
        unit_D = unit(tl.load(q + row * q_stride + d, d < D, 0.0).to(tl.float32))

    total = T
    if READS == "list":
        total = tl.load(count + row)
    runs = 0
    if READS == "ranges":
        runs = tl.load(count + row)
        total = tl.load(count + N + row)
    chunk = tl.cdiv(tl.cdiv(total, tl.num_programs(1)), BLOCK_T) * BLOCK_T
    begin = piece * chunk
    current = begin
    if READS == "ranges":
        current = count_up_to(end + row * K, begin, runs, READ)
    top = tl.full((BLOCK_R,), -float("inf"), tl.float32)
    mass = tl.zeros((BLOCK_R,), tl.float32)
    acc = tl.zeros((BLOCK_R, BLOCK_D), tl.float32)
    for at in range(begin, tl.minimum(begin + chunk, total), BLOCK_T):
        place = at + tl.arange(0, BLOCK_T)
        live = place < total
        token = place.to(tl.int64)
        if READS == "list":
            token = tl.load(start + row * K + place, live, 0).to(tl.int64) - first
            live = live & (token >= 0) & (token < T)
        if READS == "ranges":
            run, current = tile_runs(end + row * K, at, current, runs, BLOCK_T)
            run += row * K
            after = tl.load(end + run, live, 0) - place
            token = (tl.load(stop + run, live, 0) - after).to(tl.int64)
        row_mask = live[:, None] & (d < D)[None, :]
        k_at = group * k_stride_g + token[:, None] * k_stride_t + d[None, :]
        k_TD = tl.load(keys + k_at, row_mask, 0).to(q_RD.dtype)
        score = tl.dot(q_RD, tl.trans(k_TD), input_precision="ieee") * scale
        if KEY_SCALED:
            score *= tl.load(key_scale + group * ks_stride + token, live, 0.0)[None, :]
        score = capped(score, softcap, CAPPED)
        if BIASED:
            score += tl.load(bias + group * bias_stride + token, live, 0.0)[None, :]
        if TABLES:
            norm_T = tl.load(norm + group * norm_stride + token, live, 0.0)
            score += log_weight(k_TD, unit_D, mean_D, norm_T, BITS, TABLES)[None, :]
        score = tl.where(live[None, :], score, -float("inf"))
        fade, weight, top, mass = fold(score, top, mass)
        if VALUE_SCALED:  # relative to the largest, as half precision holds no small weight
            scale_T = tl.load(value_scale + group * vs_stride + token, live, 0.0)
            largest = tl.maximum(tl.max(tl.abs(scale_T), 0), 1e-30)
            weight *= (scale_T / largest)[None, :]
        v_at = group * v_stride_g + token[:, None] * v_stride_t + d[None, :]
        v_TD = tl.load(values + v_at, row_mask, 0).to(q_RD.dtype)
        acc = acc * fade[:, None]
        part = tl.dot(weight.to(q_RD.dtype), v_TD, input_precision="ieee")
        if VALUE_SCALED:
            part *= largest
        acc += part
    store_rows(out, lse, piece.to(tl.int64) * HEADS + head, lane < R, acc, top, mass, D, BLOCK_D)


def decode(
    q_HD: Tensor,
    keys_GTD: Tensor,
    values_GTD: Tensor,
    *,
    runs: Runs | None = None,
    first: int = 0,
    expected: int | None = None,
    stacked: bool = False,
    scale: float,
    softcap: float | None,
    bias_GT: Tensor | None,
    key_scale_GT: Tensor | None,
    value_scale_GT: Tensor | None,
    sampling: Sampling | None = None,
) -> Partial:
    """As the references of `dense_decode`, with runs of `sparse_decode`, and with sampling, which
    wants a row of runs a query head, of `sampled_decode`.
    """
    (heads, width), (groups, entries, _) = q_HD.shape, keys_GTD.shape
    rows = groups if runs is None else len(runs.count_N)
    a_row = heads // rows
    block_r = min(pow2(a_row, 16), 32)
    programs = rows * -(-a_row // block_r)
    exactly = exact(q_HD, keys_GTD, values_GTD)
    block_t = 32 if exactly or width > 128 else 64
    numbers = key_scale_GT, value_scale_GT, bias_GT
    mean_GD, norm_GT, bits, tables = sampling or (None, None, 0, 0)
    with device_of(q_HD):
        lists = read_lists(runs, entries, first, q_HD)
        cuts = pieces(programs, expected or lists.expected, 2 * block_t, q_HD.device)
        out = torch.empty(cuts, heads, width, dtype=torch.float32, device=q_HD.device)
        lse = torch.empty(cuts, heads, dtype=torch.float32, device=q_HD.device)
        attend_piece[(programs, cuts)](
            q_HD, keys_GTD, values_GTD,
            *(q_HD if x is None else x for x in (*numbers, mean_GD, norm_GT)),
            lists.start_NK, lists.end_NK, lists.stop_NK, lists.counts, out, lse,
            scale, softcap or 0.0, entries, first, lists.width, rows, rows // groups, a_row, heads,
            width, q_HD.stride(0), *keys_GTD.stride()[:2], *values_GTD.stride()[:2],
            *(0 if x is None else x.stride(0) for x in (*numbers, norm_GT)),
            READS=lists.reads, READ=min(pow2(lists.width, 16), MOST_READ),
            CAPPED=softcap is not None, KEY_SCALED=key_scale_GT is not None,
            VALUE_SCALED=value_scale_GT is not None, BIASED=bias_GT is not None,
            BITS=bits, TABLES=tables, EXACT=exactly,
            BLOCK_R=block_r, BLOCK_D=pow2(width, 16), BLOCK_T=block_t,
            num_warps=8 if exactly else 4,
        )  # fmt: skip
    return finished(Partial(out, lse), stacked)
