"""Which clusters are read instead of estimated, in one launch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl

from longspan_kernels.jit import device_of, pow2
from longspan_kernels.types import Runs
from longspan_kernels.wave_decode.mass import MOST_RAISED

if TYPE_CHECKING:
    from torch import Tensor

SCORES, IDS = 1024, 256
"""Clusters whose masses a program adds at once, and whose errors it looks at."""


@triton.jit
def promote_row(
    score, bias, log_size, exact, first, first_count, second, second_count,
    read, read_count, rest, rest_count, tolerance, C, R, K, E, b_stride, l_stride,
    EXACT: tl.constexpr, MOST: tl.constexpr,
    BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_E: tl.constexpr,
):  # fmt: skip
    """One KV head: the masses of all its clusters, then the errors of those to be estimated."""
    n = tl.program_id(0).to(tl.int64)
    lane, c_lane, e_lane = tl.arange(0, BLOCK_R), tl.arange(0, BLOCK_C), tl.arange(0, BLOCK_E)
    head, mine = n * R + lane, lane < R
    top = tl.full([BLOCK_R], -float("inf"), tl.float32)
    mass = tl.zeros([BLOCK_R], tl.float32)
    for begin in range(0, C, BLOCK_C):
        c = begin + c_lane
        inside = mine[:, None] & (c < C)[None, :]
        mass_RC = tl.load(score + head[:, None] * C + c[None, :], inside, -float("inf"))
        mass_RC += tl.load(bias + n * b_stride + c, c < C, 0.0)[None, :]
        most = tl.maximum(top, tl.max(mass_RC, 1))
        base = tl.where(most == -float("inf"), 0.0, most)
        mass = mass * tl.exp(top - base) + tl.sum(tl.exp(mass_RC - base[:, None]), 1)
        top = most
    if EXACT:
        besides = tl.load(exact + head, mine, -float("inf"))
        most = tl.maximum(top, besides)
        base = tl.where(most == -float("inf"), 0.0, most)
        mass = mass * tl.exp(top - base) + tl.exp(besides - base)
        top = most
    base = tl.where(top == -float("inf"), 0.0, top)
    unit = tl.where(mass > 0, 1 / mass, 0.0)

    read_at = tl.load(first_count + n)
    for begin in range(0, K, BLOCK_E):
        k = begin + e_lane
        held = (k < K) & (k < read_at)
        tl.store(read + n * (K + E) + k, tl.load(first + n * K + k, held, 0), held)
    rest_at = tl.zeros((), tl.int32)
    wanted = tl.load(second_count + n)
    for begin in range(0, E, BLOCK_E):
        e = begin + e_lane
        live = (e < E) & (e < wanted)
        c = tl.load(second + n * E + e, live, 0)
        more = tl.load(bias + n * b_stride + c, live, 0.0)
        at = head[:, None] * C + c[None, :]
        mass_RE = tl.load(score + at, mine[:, None] & live[None, :], -float("inf")) + more[None, :]
        share = tl.max(tl.exp(mass_RE - base[:, None]) * unit[:, None], 0)
        raised = more - tl.load(log_size + n * l_stride + c, live, 0.0)
        error = share * tl.sqrt(tl.maximum(tl.exp(tl.minimum(2 * raised, MOST)) - 1, 0.0))
        wrong = live & (error >= tolerance)
        kept = live & ~wrong
        up, down = tl.cumsum(wrong.to(tl.int32), 0), tl.cumsum(kept.to(tl.int32), 0)
        tl.store(read + n * (K + E) + read_at + up - 1, c, wrong)
        tl.store(rest + n * E + rest_at + down - 1, c, kept)
        read_at += tl.sum(wrong.to(tl.int32), 0)
        rest_at += tl.sum(kept.to(tl.int32), 0)
    tl.store(read_count + n, read_at)
    tl.store(rest_count + n, rest_at)


def promoted(
    read: Runs,
    rest: Runs,
    score_HC: Tensor,
    bias_GC: Tensor,
    log_size_GC: Tensor,
    exact_lse_H: Tensor | None,
    tolerance: float,
) -> tuple[Runs, Runs]:
    """As the reference."""
    (heads, clusters), rows = score_HC.shape, len(bias_GC)
    best, next_ = read.start_NK.shape[1], rest.start_NK.shape[1]
    # zeros, not whatever is there: who gathers by whole rows needs ids that are there
    read_NK = torch.zeros(rows, best + next_, dtype=torch.int32, device=score_HC.device)
    rest_NE = torch.zeros(rows, next_, dtype=torch.int32, device=score_HC.device)
    count_2N = torch.empty(2, rows, dtype=torch.int32, device=score_HC.device)
    with device_of(score_HC):
        promote_row[(rows,)](
            score_HC.contiguous(), bias_GC, log_size_GC,
            score_HC if exact_lse_H is None else exact_lse_H.contiguous(),
            read.start_NK.contiguous(), read.count_N, rest.start_NK.contiguous(), rest.count_N,
            read_NK, count_2N[0], rest_NE, count_2N[1], tolerance, clusters, heads // rows, best,
            next_, bias_GC.stride(0), log_size_GC.stride(0),
            EXACT=exact_lse_H is not None, BLOCK_R=pow2(heads // rows), BLOCK_C=SCORES,
            BLOCK_E=IDS, MOST=MOST_RAISED, num_warps=8,
        )  # fmt: skip
    return Runs(read_NK, None, count_2N[0]), Runs(rest_NE, None, count_2N[1])
