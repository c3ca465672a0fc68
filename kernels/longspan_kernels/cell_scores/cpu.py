"""Scores of cells on the native kernel."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from longspan_kernels.cell_scores.reference import rows_of
from longspan_kernels.dispatch import native, thread_count

if TYPE_CHECKING:
    from torch import Tensor


def cell_scores(
    q_HQD: Tensor,
    keys_GTD: Tensor,
    *,
    stride: int,
    block: int,
    ahead: int,
    scale: float,
    softcap: float | None,
    threads: int | None = None,
    isa: str = "native",
) -> Tensor:
    """As the reference, but for the rounding of sums."""
    cells = block // stride
    rows = rows_of(q_HQD.shape[1], block, cells)
    lse_HCY = torch.empty(len(q_HQD), rows, -(-keys_GTD.shape[1] // block))
    shape = stride, cells, ahead, scale, softcap or 0.0
    native.cell_scores(q_HQD, keys_GTD, *shape, lse_HCY, thread_count(threads), isa)
    return lse_HCY
