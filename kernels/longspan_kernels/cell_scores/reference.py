"""Scores of cells in plain PyTorch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from torch import Tensor

SLAB_BYTES = 1 << 28
"""Scores held at once."""


def rows_of(tokens: int, block: int, cells: int) -> int:
    """Cells of whole blocks."""
    return -(-tokens // block) * cells


def side_by_side(rows_NTD: Tensor, stride: int, block: int) -> Tensor:
    """float32 [N, cells, stride * D]: the rows of each cell in order, zeros up to a whole block."""
    whole_NTD = F.pad(rows_NTD.float(), (0, 0, 0, -rows_NTD.shape[1] % block))
    return whole_NTD.reshape(len(rows_NTD), -1, stride * rows_NTD.shape[2])


def cell_scores(
    q_HQD: Tensor,
    keys_GTD: Tensor,
    *,
    stride: int,
    block: int,
    ahead: int,
    scale: float,
    softcap: float | None,
) -> Tensor:
    """See the operation. A slab of scores of a group is held at once."""
    (heads, positions, width), (groups, entries, _) = q_HQD.shape, keys_GTD.shape
    device, cells = q_HQD.device, block // stride
    rows, blocks = rows_of(positions, block, cells), -(-entries // block)
    # the last row of a cell first
    q_HCSD = side_by_side(q_HQD, stride, block).view(heads, rows, stride, width).flip(2)
    q_GRCW = q_HCSD.reshape(groups, -1, rows, stride * width)
    last_C = (torch.arange(rows, device=device) * stride + ahead) // stride
    last_C = last_C.clamp(max=-(-entries // stride) - 1)
    cell_E = torch.arange(blocks * cells, device=device)
    lse_HCY = torch.empty(heads, rows, blocks, device=device)
    found_GRCY = lse_HCY.view(groups, -1, rows, blocks)
    some = max(1, SLAB_BYTES // (4 * (heads // groups) * max(1, len(cell_E))))
    for g in range(groups):
        key_EW = side_by_side(keys_GTD[g : g + 1], stride, block)[0]
        for first in range(0, rows, some):
            z_RCE = q_GRCW[g, :, first : first + some] @ key_EW.T * scale
            z_RCE = z_RCE if softcap is None else softcap * torch.tanh(z_RCE / softcap)
            z_RCE = z_RCE.masked_fill(cell_E > last_C[first : first + some, None], -torch.inf)
            z_RCYE = z_RCE.view(*z_RCE.shape[:2], blocks, cells)
            found_GRCY[g, :, first : first + some] = z_RCYE.logsumexp(-1)
    return lse_HCY
