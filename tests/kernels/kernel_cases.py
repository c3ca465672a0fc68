"""Inputs that the kernel tests share."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from longspan_kernels.types import Partial, Runs

STORAGE = (torch.float32, torch.float16, torch.bfloat16, torch.int8)
LENGTHS = (1, 7, 63, 64, 65, 1000)
HEAD_SIZES = (8, 64, 80, 96, 128, 256)


class Rows(NamedTuple):
    """Rows [G, T, D] as stored, with a scale an entry where they are whole numbers."""

    data_GTD: Tensor
    scale_GT: Tensor | None


def rows(groups: int, entries: int, width: int, dtype: torch.dtype, strided: bool = False) -> Rows:
    """Gaussian rows; `strided`: a view into a store of more capacity, as the caches hand out."""
    x_GTD = torch.randn(groups, entries, width)
    scale_GT = None
    if dtype == torch.int8:
        scale_GT = x_GTD.abs().amax(-1).clamp(min=1e-6) / 127
        x_GTD = (x_GTD / scale_GT[..., None]).round()
    if not strided:
        return Rows(x_GTD.to(dtype), scale_GT)
    store = torch.full((groups, entries + 5, width), 99).to(dtype)
    store[:, 2 : entries + 2] = x_GTD.to(dtype)
    return Rows(store[:, 2 : entries + 2], scale_GT)


def runs(rows: int, entries: int, wanted: int, sized: bool) -> Runs:
    """Runs that do not overlap: some rows empty, unspecified places beyond the counts."""
    wanted = min(wanted, entries)
    start_NK = torch.stack([torch.randperm(entries)[:wanted].sort().values for _ in range(rows)])
    end_N1 = torch.full((rows, 1), entries + 3)
    gap_NK = torch.cat([start_NK[:, 1:], end_N1], dim=1) - start_NK
    size_NK = (torch.rand(rows, wanted) * (gap_NK + 1)).int() if sized else None
    count_N = torch.randint(0, wanted + 1, (rows,), dtype=torch.int32)
    count_N[0] = 0
    beyond_NK = torch.arange(wanted) >= count_N[:, None]
    start_NK = start_NK.masked_fill(beyond_NK, -(2**31))
    return Runs(start_NK.int(), size_NK, count_N)


def assert_same(found: Partial, expected: Partial, rtol: float = 2e-5, atol: float = 2e-5) -> None:
    """Equal up to the rounding of float32 sums, and written everywhere."""
    torch.testing.assert_close(found.out, expected.out, rtol=rtol, atol=atol)
    torch.testing.assert_close(found.lse, expected.lse, rtol=rtol, atol=atol)
