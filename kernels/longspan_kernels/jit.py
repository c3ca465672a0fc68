"""What the Triton kernels share. Imports triton, so it is imported by them alone."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl

if TYPE_CHECKING:
    from torch import Tensor


@triton.jit
def capped(score, softcap, CAPPED: tl.constexpr):
    """softcap * tanh(score / softcap), exact to float32 also where the tanh is small."""
    if CAPPED:
        x = score / softcap
        small = tl.abs(x) < 0.25
        x2 = x * x
        series = 1.0 - x2 * (1.0 / 3 - x2 * (2.0 / 15 - x2 * (17.0 / 315 - x2 * (62.0 / 2835))))
        e = tl.exp(-2.0 * tl.abs(x))
        large = (1.0 - e) / (1.0 + e)
        large = tl.where(x < 0, -large, large)
        score = softcap * tl.where(small, x * series, large)
    return score


@triton.jit
def scan_runs(
    start, size, count, begin, end, stop, kept, T, first, K, BEGINS: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """Those runs of a row that have entries in [first, first + T), `kept` of them: `end`, how many
    entries they and the ones before have there; `stop`, one past the last; `begin`, the first. The
    second row of `kept`: the entries of all of them.
    """
    row = tl.program_id(0).to(tl.int64)
    live = tl.load(count + row)
    entries = tl.zeros((), tl.int32)
    runs = tl.zeros((), tl.int32)
    for block in range(0, K, BLOCK):
        run = block + tl.arange(0, BLOCK)
        at = row * K + run  # what lies behind the count is read, so that nothing waits for that
        low = tl.load(start + at, run < K, 0).to(tl.int64) - first
        high = low + tl.load(size + at, run < K, 0)
        low = tl.minimum(tl.maximum(low, 0), T).to(tl.int32)
        high = tl.minimum(tl.maximum(high, 0), T).to(tl.int32)
        length = tl.where(run < live, tl.maximum(high - low, 0), 0)
        filled = length > 0
        to = row * K + runs + tl.cumsum(filled.to(tl.int32), 0) - 1
        tl.store(end + to, entries + tl.cumsum(length, 0), filled)
        tl.store(stop + to, high, filled)
        if BEGINS:
            tl.store(begin + to, low, filled)
        entries += tl.sum(length, 0)
        runs += tl.sum(filled.to(tl.int32), 0)
    tl.store(kept + row, runs)
    tl.store(kept + tl.num_programs(0) + row, entries)


@triton.jit
def count_up_to(numbers, most, count, READ: tl.constexpr):
    """How many of the first `count` numbers are `most` or less. All are read: a search would wait
    for one number after another. Of where runs end: the run that holds a place of the list.
    """
    found = tl.zeros((), tl.int32)
    for first in range(0, count, READ):
        at = first + tl.arange(0, READ)
        taken = (tl.load(numbers + at, at < count, 0) <= most) & (at < count)
        found += tl.sum(taken.to(tl.int32), 0)
    return found


@triton.jit
def tile_runs(end, at, current, runs, BLOCK_T: tl.constexpr):
    """The run of each of the places at, at + 1, ..., of which `current` holds the first; and that
    of the place behind them. None of the runs is empty, so there are no more than places.
    """
    window = current + tl.arange(0, BLOCK_T)
    ends = tl.load(end + window, window < runs, 0x7FFFFFFF)
    place = at + tl.arange(0, BLOCK_T)
    run = current + tl.sum((ends[None, :] <= place[:, None]).to(tl.int32), 1)
    return run, current + tl.sum((ends <= at + BLOCK_T).to(tl.int32), 0)


@triton.jit
def fold(score, top, mass):
    """Take a tile of scores [R, T] into a running softmax: the factor of what was summed before,
    the tile's weights, the new maximum and the new sum of weights.
    """
    new_top = tl.maximum(top, tl.max(score, 1))
    base = tl.where(new_top == -float("inf"), 0.0, new_top)
    fade = tl.exp(top - base)
    weight = tl.exp(score - base[:, None])
    return fade, weight, new_top, mass * fade + tl.sum(weight, 1)


@triton.jit
def joined(top, mass, row, inside, PARTS, BLOCK_R: tl.constexpr, BLOCK_P: tl.constexpr):
    """Maximum and sum of weights of rows [R] of whose parts `top` and `mass` [X, PARTS] tell them;
    -inf and 0 where a row is not inside.
    """
    most = tl.full((BLOCK_R,), -float("inf"), tl.float32)
    total = tl.zeros((BLOCK_R,), tl.float32)
    for first in range(0, PARTS, BLOCK_P):
        part = first + tl.arange(0, BLOCK_P)
        at = row[:, None] * PARTS + part[None, :]
        mask = inside[:, None] & (part < PARTS)[None, :]
        top_RP = tl.load(top + at, mask, -float("inf"))
        new_most = tl.maximum(most, tl.max(top_RP, 1))
        base = tl.where(new_most == -float("inf"), 0.0, new_most)
        mass_RP = tl.load(mass + at, mask, 0.0) * tl.exp(top_RP - base[:, None])
        total = total * tl.exp(most - base) + tl.sum(mass_RP, 1)
        most = new_most
    return most, total


@triton.jit
def store_rows(out, lse, row, inside, acc, top, mass, D, BLOCK_D: tl.constexpr):
    """What a running softmax came to, in rows [R] of `out` and `lse`; 0 and -inf where it saw
    nothing.
    """
    d = tl.arange(0, BLOCK_D)
    empty = mass == 0.0
    mass = tl.where(empty, 1.0, mass)
    mask = inside[:, None] & (d < D)[None, :]
    tl.store(out + row[:, None] * D + d[None, :], acc / mass[:, None], mask)
    tl.store(lse + row, tl.where(empty, -float("inf"), top + tl.log(mass)), inside)


MOST_READ = 2048
"""Numbers that `count_up_to` reads at once."""


def pow2(number: int, least: int = 1) -> int:
    """The next power of two, at least `least`."""
    return max(least, 1 << max(0, number - 1).bit_length())


@cache
def _multiprocessors(index: int) -> int:
    return int(torch.cuda.get_device_properties(index).multi_processor_count)


def pieces(rows: int, entries: int, least: int, device: torch.device) -> int:
    """Into how many pieces a row's entries are cut, so that `rows` rows fill the device four times
    over and no piece has much fewer than `least` entries.
    """
    processors = _multiprocessors(device.index or 0) if device.type == "cuda" else 2
    wanted = -(-4 * processors // max(rows, 1))
    return max(1, min(wanted, -(-entries // least), 128))


def device_of(tensor: Tensor) -> AbstractContextManager[object]:
    """Launch on the tensor's device, whichever is current."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()


def exact(*tensors: Tensor) -> bool:
    """Whether products must be taken in float32: unless all factors are of one 16-bit type."""
    kinds = {tensor.dtype for tensor in tensors if tensor.dtype != torch.int8}
    return len(kinds) != 1 or torch.float32 in kinds
