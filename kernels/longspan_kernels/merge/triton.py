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
def merge_row(outs, lses, out, lse, PARTS, ROWS, D, BLOCK_P: tl.constexpr, BLOCK_D: tl.constexpr):
    """One row of all parts; outs [P, X, D], lses [P, X]."""
    row = tl.program_id(0).to(tl.int64)
    d = tl.arange(0, BLOCK_D)
    top = -float("inf")
    for first in range(0, PARTS, BLOCK_P):
        part = first + tl.arange(0, BLOCK_P)
        part_lse = tl.load(lses + part.to(tl.int64) * ROWS + row, part < PARTS, -float("inf"))
        top = tl.maximum(top, tl.max(part_lse, 0))
    base = tl.where(top == -float("inf"), 0.0, top)  # every part empty: weights of 0, not NaN
    total = tl.zeros((), tl.float32)
    acc = tl.zeros((BLOCK_D,), tl.float32)
    for first in range(0, PARTS, BLOCK_P):
        part = first + tl.arange(0, BLOCK_P)
        at = part.to(tl.int64) * ROWS + row
        part_lse = tl.load(lses + at, part < PARTS, -float("inf"))
        weight = tl.exp(part_lse - base)
        mask = (part < PARTS)[:, None] & (d < D)[None, :]
        rows = tl.load(outs + at[:, None] * D + d[None, :], mask, 0.0)
        total += tl.sum(weight, 0)
        acc += tl.sum(weight[:, None] * rows, 0)
    empty = total == 0.0
    acc = acc / tl.where(empty, 1.0, total)
    tl.store(out + row * D + d, acc, d < D)
    total = tl.where(empty, 1.0, total)
    tl.store(lse + row, tl.where(empty, -float("inf"), base + tl.log(total)))


def merge_stacked(outs_PXD: Tensor, lses_PX: Tensor) -> Partial:
    """Merge over the first axis; contiguous float32, out [X, D] and lse [X]."""
    parts, rows, width = outs_PXD.shape
    out = torch.empty(rows, width, dtype=torch.float32, device=outs_PXD.device)
    lse = torch.empty(rows, dtype=torch.float32, device=outs_PXD.device)
    if rows:
        with device_of(out):
            merge_row[(rows,)](
                outs_PXD,
                lses_PX,
                out,
                lse,
                parts,
                rows,
                width,
                BLOCK_P=min(pow2(parts), 16),
                BLOCK_D=pow2(width),
                num_warps=1,
            )
    return Partial(out, lse)


def merge(partials: Sequence[Partial]) -> Partial:
    """As the reference."""
    shape = partials[0].out.shape
    merged = merge_stacked(
        torch.stack([part.out.reshape(-1, shape[-1]) for part in partials]),
        torch.stack([part.lse.reshape(-1) for part in partials]),
    )
    return Partial(merged.out.view(shape), merged.lse.view(shape[:-1]))
