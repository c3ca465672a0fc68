"""What clusters begin with, in Triton: a batch of the seeds of all segments in three launches."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl

from longspan_kernels.jit import pow2
from longspan_kernels.segmented_kmeans.reference_seeds import BATCH, EVEN_SHARE, POOL

if TYPE_CHECKING:
    from torch import Tensor

    from longspan_kernels.segmented_kmeans.reference_seeds import Seeding

READ = 8192
"""Tokens of a segment that a program holds while it looks for the least like."""


@triton.jit
def part_of(T, C, SEGMENTS, blocks):
    """Which of so many blocks of a segment a program is of, the segment's tokens and clusters, and
    the group: one dimension, as the others of a grid end at 65,535.
    """
    row = tl.program_id(0) // blocks
    segment = (row % SEGMENTS).to(tl.int64)
    low = ((segment * C) // SEGMENTS).to(tl.int32)
    high = (((segment + 1) * C) // SEGMENTS).to(tl.int32)
    begin, end = (segment * T) // SEGMENTS, ((segment + 1) * T) // SEGMENTS
    return tl.program_id(0) % blocks, begin, end, low, high, (row // SEGMENTS).to(tl.int64)


@triton.jit
def batch_of(batch, begin, end, low, high, share, BATCH: tl.constexpr):
    """The clusters whose seeds a batch chooses: those that are evenly spaced before batch 0; all
    are where there are more of them than tokens.
    """
    spaced = tl.maximum(tl.ceil(share * (high - low).to(tl.float32)).to(tl.int32), 1)
    spaced = tl.where(high - low > end - begin, high - low, tl.minimum(spaced, high - low))
    first = tl.minimum(low + spaced + batch * BATCH, high)
    if batch < 0:
        first = low
    return first, tl.minimum(low + spaced + (batch + 1) * BATCH, high)


@triton.jit
def space(
    seed, near, T, C, SEGMENTS, share, BATCH: tl.constexpr, BLOCK_C: tl.constexpr
):  # fmt: skip
    """Those of a segment's seeds that lie in the middle of equal stretches of its tokens."""
    _, begin, end, low, high, group = part_of(T, C, SEGMENTS, 1)
    _, until = batch_of(-1, begin, end, low, high, share, BATCH)
    for first in range(low, until, BLOCK_C):
        c = first + tl.arange(0, BLOCK_C)
        stretch = (2 * (c - low) + 1).to(tl.int64) * (end - begin)
        token = begin + stretch // (2 * (until - low))
        tl.store(seed + group * C + c, token, c < until)
        tl.store(near + group * T + token, float("inf"), c < until)


@triton.jit
def meet(
    x, short, seed, near, T, C, D, SEGMENTS, share, batch, blocks, BATCH: tl.constexpr,
    BLOCK_T: tl.constexpr, BLOCK_S: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Some tokens of a segment meet the seeds of a batch: their largest cosine with any so far."""
    block, begin, end, low, high, group = part_of(T, C, SEGMENTS, blocks)
    low, high = batch_of(batch, begin, end, low, high, share, BATCH)
    token = group * T + begin + block * BLOCK_T + tl.arange(0, BLOCK_T)
    there, d = token < group * T + end, tl.arange(0, BLOCK_D)
    x_TD = tl.load(x + token[:, None] * D + d[None, :], there[:, None] & (d < D)[None, :], 0.0)
    most_T = tl.full((BLOCK_T,), -float("inf"), tl.float32)
    for first in range(low, high, BLOCK_S):
        s = first + tl.arange(0, BLOCK_S)
        at = group * T + tl.load(seed + group * C + s, s < high, 0)
        x_SD = tl.load(x + at[:, None] * D + d[None, :], (s < high)[:, None] & (d < D)[None, :], 0)
        like_TS = tl.dot(x_TD, tl.trans(x_SD), input_precision="ieee")
        like_TS *= tl.load(short + at, s < high, 0.0)[None, :]
        like_TS = tl.where((s < high)[None, :], like_TS, -float("inf"))
        most_T = tl.maximum(most_T, tl.max(like_TS, 1))
    near_T = tl.load(near + token, there, 0.0)
    most_T *= tl.load(short + token, there, 0.0)
    tl.store(near + token, tl.maximum(near_T, most_T), there & (low < high))


@triton.jit
def ordered(near, token, there):
    """Integers of the order of the numbers; the largest where there is none."""
    bits = tl.load(near + token, there, float("inf")).to(tl.int32, bitcast=True)
    return tl.where(there, tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits), 0x7FFFFFFF)


@triton.jit
def list_least(
    near, pool, T, C, SEGMENTS, POOL: tl.constexpr, READ: tl.constexpr
):  # fmt: skip
    """The POOL tokens of a segment that are least like its seeds, ascending; of equals the first;
    all tokens, and -1 behind them, where there are no more.
    """
    _, begin, end, _, _, group = part_of(T, C, SEGMENTS, 1)
    row, near = tl.program_id(0).to(tl.int64), near + group * T
    # fewer than POOL are low or less, and at least POOL, where there are so many, high or less
    low = tl.full((), -0x80000001, tl.int64)
    high = tl.full((), 0x7FFFFFFF, tl.int64)
    for _ in range(32):
        middle = (low + high) >> 1
        found = tl.zeros((), tl.int32)
        for first in range(begin, end, READ):
            token = first + tl.arange(0, READ)
            bits = ordered(near, token, token < end)
            found += tl.sum(((bits <= middle.to(tl.int32)) & (token < end)).to(tl.int32), 0)
        low, high = tl.where(found < POOL, middle, low), tl.where(found < POOL, high, middle)
    border = high.to(tl.int32)
    ties = tl.full((), POOL, tl.int32)
    for first in range(begin, end, READ):
        token = first + tl.arange(0, READ)
        ties -= tl.sum((ordered(near, token, token < end) < border).to(tl.int32), 0)
    place = tl.full((), -1, tl.int32)
    for first in range(begin, end, READ):
        token = first + tl.arange(0, READ)
        bits = ordered(near, token, token < end)
        equal = ((bits == border) & (token < end)).to(tl.int32)
        taken = (bits < border) | ((equal > 0) & (tl.cumsum(equal, 0) <= ties))
        tl.store(pool + row * POOL + place + tl.cumsum(taken.to(tl.int32), 0), token, taken)
        place += tl.sum(taken.to(tl.int32), 0)
        ties -= tl.sum(equal, 0)
    p = tl.arange(0, POOL)
    tl.store(pool + row * POOL + p, tl.full((POOL,), -1, tl.int64), p > place)


@triton.jit
def pick(
    x, short, near, pool, seed, T, C, D, SEGMENTS, share, batch, BATCH: tl.constexpr,
    POOL: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """The seeds of a batch: again and again that of a segment's pool which is least like any seed,
    those just chosen included; ties go to the first.
    """
    _, begin, end, low, high, group = part_of(T, C, SEGMENTS, 1)
    first, last = batch_of(batch, begin, end, low, high, share, BATCH)
    p, d = tl.arange(0, POOL), tl.arange(0, BLOCK_D)
    token = tl.load(pool + tl.program_id(0).to(tl.int64) * POOL + p)
    there, at = token >= 0, group * T + tl.maximum(token, 0)
    x_PD = tl.load(x + at[:, None] * D + d[None, :], there[:, None] & (d < D)[None, :], 0.0)
    short_P = tl.load(short + at, there, 0.0)
    near_P = tl.load(near + at, there, float("inf"))
    like_PP = tl.dot(x_PD, tl.trans(x_PD), input_precision="ieee")
    like_PP *= short_P[:, None] * short_P[None, :]
    like_PP = tl.where(p[:, None] == p[None, :], float("inf"), like_PP)
    for c in range(first, last):
        mine = p == tl.argmin(near_P, 0, tie_break_left=True)
        chosen = tl.sum(tl.where(mine, token, 0), 0)
        tl.store(seed + group * C + c, chosen)
        tl.store(near + group * T + chosen, float("inf"))
        near_P = tl.maximum(near_P, tl.sum(tl.where(mine[:, None], like_PP, 0.0), 0))


def seeds(
    x_GTD: Tensor, short_GT: Tensor, clusters: int, segments: int, seeding: Seeding
) -> Tensor:
    """[G, C, D], the first centroids, of the type of the centred keys `x_GTD`: as the reference,
    but of length 1 unless all are evenly spaced. `short_GT`: 1 over the tokens' lengths.
    """
    (groups, tokens, width), share = x_GTD.shape, EVEN_SHARE[seeding]
    seed_GC = torch.empty(groups, clusters, dtype=torch.int64, device=x_GTD.device)
    near_GT = torch.full((groups, tokens), -torch.inf, device=x_GTD.device)
    pool_NP = torch.empty(groups * segments, POOL, dtype=torch.int64, device=x_GTD.device)
    rows, most = groups * segments, -(-clusters // segments)
    sizes = tokens, clusters, width, segments, share
    block_d = pow2(width, 16)
    block_t = 128 if x_GTD.dtype != torch.float32 and width <= 128 else 32
    blocks = triton.cdiv(-(-tokens // segments), block_t)

    def met(batch: int, block_s: int) -> None:
        meet[(rows * blocks,)](
            x_GTD, short_GT, seed_GC, near_GT, *sizes, batch, blocks,
            BATCH=BATCH, BLOCK_T=block_t, BLOCK_S=block_s, BLOCK_D=block_d,
        )  # fmt: skip

    space[(rows,)](seed_GC, near_GT, tokens, clusters, segments, share, BATCH=BATCH, BLOCK_C=256)
    batches = 0 if share == 1 else -(-(most - max(1, int(share * most))) // BATCH)
    if batches:
        met(-1, 64)
    for batch in range(batches):
        list_least[(rows,)](
            near_GT, pool_NP, tokens, clusters, segments, POOL=POOL,
            READ=min(pow2(-(-tokens // segments), POOL), READ), num_warps=8,
        )  # fmt: skip
        pick[(rows,)](
            x_GTD, short_GT, near_GT, pool_NP, seed_GC, *sizes, batch,
            BATCH=BATCH, POOL=POOL, BLOCK_D=block_d,
        )  # fmt: skip
        if batch + 1 < batches:
            met(batch, BATCH)
    found_GCD = x_GTD.gather(1, seed_GC[..., None].expand(-1, -1, width))
    if share == 1:
        return found_GCD
    return (found_GCD * short_GT.gather(1, seed_GC)[..., None]).to(x_GTD.dtype)
