"""Merging partial attentions in Triton."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl

from longspan_kernels.jit import device_of, pow2
from longspan_kernels.types import Partial

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


@triton.jit
def largest(lses, row, top, PARTS, ROWS, BLOCK_P: tl.constexpr):
    """The largest lse of a row's parts, and of what came before."""
    for first in range(0, PARTS, BLOCK_P):
        part = first + tl.arange(0, BLOCK_P)
        part_lse = tl.load(lses + part.to(tl.int64) * ROWS + row, part < PARTS, -float("inf"))
        top = tl.maximum(top, tl.max(part_lse, 0))
    return top


@triton.jit
def summed(
    outs, lses, row, base, total, acc, PARTS, ROWS, D, BLOCK_P: tl.constexpr, BLOCK_D: tl.constexpr
):
    """A row's parts, weighed and added to what came before."""
    d = tl.arange(0, BLOCK_D)
    for first in range(0, PARTS, BLOCK_P):
        part = first + tl.arange(0, BLOCK_P)
        at = part.to(tl.int64) * ROWS + row
        part_lse = tl.load(lses + at, part < PARTS, -float("inf"))
        weight = tl.exp(part_lse - base)
        mask = (part < PARTS)[:, None] & (d < D)[None, :]
        rows = tl.load(outs + at[:, None] * D + d[None, :], mask, 0.0)
        total += tl.sum(weight, 0)
        acc += tl.sum(weight[:, None] * rows, 0)
    return total, acc


@triton.jit
def merge_row(
    outs, lses, more_outs, more_lses, out, lse, PARTS, MORE, ROWS, D,
    BLOCK_P: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """One row of all parts; outs [P, X, D], lses [P, X], of two stacks."""
    row = tl.program_id(0).to(tl.int64)
    d = tl.arange(0, BLOCK_D)
    top = tl.full((), -float("inf"), tl.float32)
    top = largest(lses, row, top, PARTS, ROWS, BLOCK_P)
    top = largest(more_lses, row, top, MORE, ROWS, BLOCK_P)
    base = tl.where(top == -float("inf"), 0.0, top)  # every part empty: weights of 0, not NaN
    total = tl.zeros((), tl.float32)
    acc = tl.zeros((BLOCK_D,), tl.float32)
    total, acc = summed(outs, lses, row, base, total, acc, PARTS, ROWS, D, BLOCK_P, BLOCK_D)
    total, acc = summed(
        more_outs, more_lses, row, base, total, acc, MORE, ROWS, D, BLOCK_P, BLOCK_D
    )
    empty = total == 0.0
    acc = acc / tl.where(empty, 1.0, total)
    tl.store(out + row * D + d, acc, d < D)
    total = tl.where(empty, 1.0, total)
    tl.store(lse + row, tl.where(empty, -float("inf"), base + tl.log(total)))


def merge_stacks(stack: Partial, more: Partial | None = None) -> Partial:
    """Merge one or two stacks over their first axis; contiguous float32, [P, X, D] and [P, X]."""
    parts, rows, width = stack.out.shape
    out = torch.empty(rows, width, dtype=torch.float32, device=stack.out.device)
    lse = torch.empty(rows, dtype=torch.float32, device=stack.out.device)
    others = 0 if more is None else len(more.out)
    if rows:
        with device_of(out):
            merge_row[(rows,)](
                *stack, *(more or stack), out, lse, parts, others, rows, width,
                BLOCK_P=min(pow2(max(parts, others)), 16), BLOCK_D=pow2(width), num_warps=1,
            )  # fmt: skip
    return Partial(out, lse)


def merge(partials: Sequence[Partial], stacked: bool) -> Partial:
    """As the reference."""
    shape = partials[0].out.shape[int(stacked) :]
    join = torch.cat if stacked else torch.stack
    stacks = [flat(part, shape) for part in partials] if stacked else []
    if len(stacks) not in (1, 2):
        outs, lses = (join(list(each)) for each in zip(*partials, strict=True))
        stacks = [flat(Partial(outs, lses), shape)]
    merged = merge_stacks(*stacks)
    return Partial(merged.out.view(shape), merged.lse.view(shape[:-1]))


def flat(stack: Partial, shape: Sequence[int]) -> Partial:
    """A stack of parts of some shape as [P, X, D] and [P, X], contiguous."""
    parts = len(stack.out)
    out_PXD: Tensor = stack.out.contiguous().view(parts, -1, shape[-1])
    return Partial(out_PXD, stack.lse.contiguous().view(parts, -1))
