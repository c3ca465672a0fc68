"""XAttention: blocks by the sums of their antidiagonals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch

from longspan.options import Fraction, settings
from longspan.prefill.sparse import Choice, SparsePrefill
from longspan_kernels.cell_scores import cell_scores

if TYPE_CHECKING:
    from torch import Tensor

    from longspan.prefill.sparse import Grid
    from longspan.types import LayerGeometry

SLAB_BYTES = 1 << 28
"""Shares held at once."""


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
        forced_XY = (grid.ahead_XY == 0) | (grid.begin_Y == 0)
        return Choice(enough(self._scores(geometry, q_HQD, grid), forced_XY, self.threshold))

    def _scores(self, geometry: LayerGeometry, q_HQD: Tensor, grid: Grid) -> Tensor:
        """float32 [H, X, Y]: estimated attention of each block, a row's sum being its cells."""
        cut: dict[str, Any] = {"stride": self.stride, "block": self.block}
        how: dict[str, Any] = {"scale": geometry.scale / self.stride, "softcap": geometry.softcap}
        first = grid.parts[-1].first
        found = [
            cell_scores(q_HQD, part.keys_GTD, ahead=first - part.first, **cut, **how)
            for part in grid.parts
        ]
        lse_HCY = torch.cat(found, dim=2)
        cells = self.block // self.stride
        asked_C1 = torch.arange(lse_HCY.shape[1], device=grid.device)[:, None] * self.stride
        asked_C1 = asked_C1 < q_HQD.shape[1]
        some = max(1, SLAB_BYTES // (4 * max(1, lse_HCY[0].numel())))
        shares = (lse.softmax(-1) * asked_C1 for lse in torch.split(lse_HCY, some))
        summed = [share.view(len(share), -1, cells, share.shape[2]).sum(2) for share in shares]
        return torch.cat(summed)


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
