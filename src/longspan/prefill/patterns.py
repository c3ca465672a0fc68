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


def weights(
    geometry: LayerGeometry, q_RSD: Tensor, row_S: Tensor, grid: Grid, group: int
) -> Tensor:
    """float32 [R, S, P]: exact attention of sampled rows, by position; 0 for tokens that lie in no
    part of the grid.
    """
    positions = grid.parts[-1].stop
    z_RSP = torch.full((*q_RSD.shape[:2], positions), -torch.inf, device=grid.device)
    for part in grid.parts:
        score_RST = q_RSD.float() @ part.keys_GTD[group].float().T
        z_RSP[..., part.first : part.stop] = capped(score_RST, geometry)
    future_SP = torch.arange(positions, device=grid.device) > row_S[:, None]
    return z_RSP.masked_fill_(future_SP, -torch.inf).softmax(-1)


def vertical_slash(
    weight_RSP: Tensor, row_S: Tensor, grid: Grid, vertical: int, slash: int
) -> Choice:
    """The columns and the distances that the last rows attend most."""
    heads, _, positions = weight_RSP.shape
    column_RP = weight_RSP.sum(1)
    column_RP[:, :FORCED_COLUMNS] = torch.inf
    distance_RP = torch.zeros_like(column_RP)
    for number, row in enumerate(row_S.tolist()):
        distance_RP[:, : row + 1] += weight_RSP[:, number, : row + 1].flip(-1)
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


def recovered(choice: Choice, weight_RSP: Tensor, row_S: Tensor, grid: Grid) -> Tensor:
    """[R]: the share of the sampled rows' attention that a choice reads, on average."""
    total_RS = torch.zeros(weight_RSP.shape[:2], device=grid.device)
    at_S = (row_S - grid.parts[-1].first) // grid.block
    for number, part in enumerate(grid.parts):
        blocks_RXY, columns_RT = grid.of_part(choice, number)
        entry_T = torch.arange(part.stop - part.first, device=grid.device) // grid.block
        seen_RST = blocks_RXY[:, at_S][..., entry_T]
        if columns_RT is not None:
            seen_RST = seen_RST | columns_RT[:, None]
        total_RS += (weight_RSP[..., part.first : part.stop] * seen_RST).sum(-1)
    return total_RS.mean(1)


def cost(choice: Choice, grid: Grid) -> Tensor:
    """[R]: entries that a choice reads, a position, on average; the future not counted."""
    past_XY = grid.ahead_XY > -grid.block
    blocks_R = (choice.blocks_HXY & past_XY).sum((1, 2)) * grid.block / len(grid.row_X)
    return blocks_R if choice.columns_HP is None else blocks_R + choice.columns_HP.sum(1)
