"""XAttention: blocks by the sums of their antidiagonals."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

import torch
import torch.nn.functional as F

from longspan.options import Fraction, settings
from longspan.prefill.sparse import Choice, SparsePrefill, capped

if TYPE_CHECKING:
    from torch import Tensor

    from longspan.prefill.sparse import Grid
    from longspan.types import LayerGeometry

SLAB_BYTES = 1 << 28
"""Scores held at once."""


@settings
class XAttention(SparsePrefill):
    """Xu et al., "XAttention: Block Sparse Attention with Antidiagonal Scoring", arXiv 2503.16428.

    stride: a square of stride x stride products is judged by one antidiagonal, so that scoring
    costs 1 / stride of the attention. threshold: for each `block` of positions, blocks are taken
    best first until they hold this share of the estimated attention; the first block of the prompt
    and the diagonal one are always taken, and count.

    Deviations: one threshold for all heads (the authors publish tables for two models).
    """

    name: ClassVar[str] = "xattention"

    stride: Literal[4, 8, 16, 32] = 8
    threshold: Fraction = 0.9
    block: Literal[64, 128] = 128

    @property
    def block_tokens(self) -> int:
        """See SparsePrefill."""
        return self.block

    def choose(self, geometry: LayerGeometry, q_HQD: Tensor, grid: Grid) -> Choice | None:
        """See SparsePrefill."""
        groups = q_HQD.reshape(geometry.kv_heads, -1, *q_HQD.shape[1:])
        scores = [self._scores(geometry, q_RQD, grid, g) for g, q_RQD in enumerate(groups)]
        forced_XY = (grid.ahead_XY == 0) | (grid.begin_Y == 0)
        return Choice(enough(torch.cat(scores), forced_XY, self.threshold))

    def _scores(self, geometry: LayerGeometry, q_RQD: Tensor, grid: Grid, group: int) -> Tensor:
        """float32 [R, X, Y]: estimated attention of each block, a row's sum being its cells."""
        cells = self.block // self.stride
        q_RXD = self._strided(q_RQD.flip(-2), backwards=True)
        q_RXD = q_RXD.view(len(q_RQD), -1, cells, q_RXD.shape[-1])
        keys = [self._strided(part.keys_GTD[group]) for part in grid.parts]
        key_ZD = torch.cat(keys)
        known_Z = torch.cat([self._known(part.stop - part.first, grid) for part in grid.parts])
        asked_XC1 = self._known(q_RQD.shape[1], grid).view(-1, cells, 1)
        rows = max(1, SLAB_BYTES // (4 * q_RXD.shape[0] * cells * len(key_ZD)))
        found = []
        for first in range(0, q_RXD.shape[1], rows):
            slab = slice(first, first + rows)
            z_RXCZ = capped(q_RXD[:, slab] @ key_ZD.T / self.stride, geometry)
            ahead_XZ = grid.ahead_XY[slab].repeat_interleave(cells, -1)
            number_Z = torch.arange(cells, device=grid.device).repeat(len(grid.begin_Y))
            step_CZ = (torch.arange(cells, device=grid.device)[:, None] - number_Z) * self.stride
            future_XCZ = ahead_XZ[:, None] + step_CZ < 0
            z_RXCZ = z_RXCZ.masked_fill(future_XCZ | ~known_Z, -torch.inf)
            share_RXCZ = z_RXCZ.softmax(-1) * asked_XC1[slab]
            found.append(share_RXCZ.view(*share_RXCZ.shape[:3], -1, cells).sum((2, 4)))
        return torch.cat(found, dim=1)

    def _strided(self, rows_QD: Tensor, *, backwards: bool = False) -> Tensor:
        """float32 [.., Q / stride, stride * D], padded to whole blocks with zeros. Backwards: the
        rows come last first, and so do those of a cell, while the cells come in order.
        """
        pad = -rows_QD.shape[-2] % self.block
        whole_QD = F.pad(rows_QD.float(), (0, 0, pad, 0) if backwards else (0, 0, 0, pad))
        cells_ZD = whole_QD.reshape(*whole_QD.shape[:-2], -1, self.stride * whole_QD.shape[-1])
        return cells_ZD.flip(-2) if backwards else cells_ZD

    def _known(self, tokens: int, grid: Grid) -> Tensor:
        """Bool: which cells of a part, padded to whole blocks, hold a token."""
        padded = -(-tokens // self.block) * self.block
        return torch.arange(0, padded, self.stride, device=grid.device) < tokens


def enough(score_RXY: Tensor, forced_XY: Tensor, share: float) -> Tensor:
    """Bool: the forced blocks, then the best until they hold `share` of the row."""
    first_RXY = score_RXY.masked_fill(forced_XY, torch.inf)
    order_RXY = first_RXY.argsort(-1, descending=True)
    ordered_RXY = score_RXY.gather(-1, order_RXY)
    before_RXY = ordered_RXY.cumsum(-1) - ordered_RXY
    taken_RXY = before_RXY < share * ordered_RXY.sum(-1, keepdim=True)
    # at a share of 1 rounding must not leave a block out
    taken_RXY |= (ordered_RXY > 0) & (share >= 1)
    chosen_RXY = torch.zeros_like(taken_RXY).scatter_(-1, order_RXY, taken_RXY)
    return chosen_RXY | forced_XY
