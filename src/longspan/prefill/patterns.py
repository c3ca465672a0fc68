"""The three patterns of MInference (arXiv 2407.02490), by block, for the query heads of a group."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from longspan.prefill.sparse import Choice, capped

if TYPE_CHECKING:
    from torch import Tensor

    from longspan.prefill.sparse import Grid
    from longspan.types import LayerGeometry

FORCED_COLUMNS, FORCED_DISTANCES = 30, 100
"""The first columns and the last distances are always read (the authors' code)."""


def vertical_slash(
    column_RP: Tensor, distance_RP: Tensor, grid: Grid, vertical: int, slash: int
) -> Choice:
    """The columns and the distances that rows attend most, by what they attend at each."""
    heads, positions = column_RP.shape
    column_RP[:, :FORCED_COLUMNS] = torch.inf
    distance_RP[:, :FORCED_DISTANCES] = torch.inf
    columns_RP = top(column_RP, max(vertical, FORCED_COLUMNS))
    taken_RP = top(distance_RP, max(slash, FORCED_DISTANCES))
    # how many distances up to each are taken tells whether a block holds one
    count_RP = F.pad(taken_RP.cumsum(-1), (1, 0))
    low_XY = (grid.ahead_XY - grid.block + 1).clamp(0, positions)
    high_XY = (grid.ahead_XY + grid.block).clamp(0, positions)
    held_RXY = (count_RP[:, high_XY] - count_RP[:, low_XY]).view(heads, *low_XY.shape)
    return Choice(held_RXY > 0, columns_RP)


def a_shape(heads: int, grid: Grid, init: int, local: int) -> Choice:
    """The first tokens and a local band."""
    near_XY = (grid.ahead_XY < local + grid.block - 1) & (grid.ahead_XY > -grid.block)
    first_XY = (grid.begin_Y < init).expand_as(near_XY)
    return Choice((near_XY | first_XY).expand(heads, -1, -1))


def block_sparse(
    geometry: LayerGeometry, q_RQD: Tensor, grid: Grid, group: int, blocks: int
) -> Choice:
    """The blocks of the best mean keys for the mean query of a block of rows, and the diagonal."""
    q_RXD = pooled(q_RQD, grid.block)
    k_YD = torch.cat([pooled(part.keys_GTD[group], grid.block) for part in grid.parts])
    score_RXY = capped(q_RXD @ k_YD.T, geometry)
    score_RXY = score_RXY.masked_fill(grid.ahead_XY < 0, -torch.inf)
    score_RXY = score_RXY.masked_fill(grid.ahead_XY == 0, torch.inf)
    return Choice(top(score_RXY, blocks) & (grid.ahead_XY >= 0))


def pooled(rows_QD: Tensor, block: int) -> Tensor:
    """float32 means of blocks of rows [.., Q, D]; the last may be short."""
    rows = rows_QD.shape[-2]
    whole_QD = F.pad(rows_QD.float(), (0, 0, 0, -rows % block))
    sum_XD = whole_QD.reshape(*whole_QD.shape[:-2], -1, block, whole_QD.shape[-1]).sum(-2)
    size_X = torch.full((sum_XD.shape[-2],), block, device=rows_QD.device)
    size_X[-1] = rows - block * (len(size_X) - 1)
    return sum_XD / size_X[:, None]


def top(score: Tensor, count: int) -> Tensor:
    """Bool: the best `count` along the last axis."""
    best = score.topk(min(count, score.shape[-1]), dim=-1).indices
    return torch.zeros_like(score, dtype=torch.bool).scatter_(-1, best, True)


def cost(choice: Choice, grid: Grid) -> Tensor:
    """[R]: entries that a choice reads, a position, on average; the future not counted."""
    past_XY = grid.ahead_XY > -grid.block
    blocks_R = (choice.blocks_HXY & past_XY).sum((1, 2)) * grid.block / len(grid.row_X)
    return blocks_R if choice.columns_HP is None else blocks_R + choice.columns_HP.sum(1)
