"""Some rows of a chunk, and what they attend: by block, by column and by distance."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

from longspan.prefill.sparse import capped
from longspan_kernels.cell_scores import cell_scores

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from longspan.prefill.sparse import Choice, Grid
    from longspan.types import LayerGeometry

SLAB_BYTES = {"cpu": 1 << 22, "cuda": 1 << 28}
"""Scores held at once: on a CPU what caches hold."""
COUNTED = 32
"""Entries whose scores `cell_scores` sums at most, a cell each."""


@dataclass(frozen=True)
class Sampled:
    """Rows of the query heads of a group, at ascending positions of the chunk; tokens that lie in
    no part of the grid are not seen.
    """

    geometry: LayerGeometry
    grid: Grid
    group: int
    q_RSD: Tensor
    row_S: Tensor

    @classmethod
    def of(
        cls, geometry: LayerGeometry, grid: Grid, group: int, q_RQD: Tensor, at_S: Tensor
    ) -> Sampled:
        """Those at `at_S` in the chunk, of all its queries."""
        return cls(geometry, grid, group, q_RQD[:, at_S], at_S + grid.parts[-1].first)

    @cached_property
    def lse_RSY(self) -> Tensor:
        """float32: of the scores in each block; -inf where a row sees none of it."""
        how: dict[str, Any] = {"scale": self.geometry.scale, "softcap": self.geometry.softcap}
        block = min(self.grid.block, COUNTED)
        found = []
        for part in self.grid.parts[:-1]:
            keys_1TD = part.keys_GTD[self.group : self.group + 1]
            all_seen = part.stop - part.first
            cells_RSC = cell_scores(
                self.q_RSD, keys_1TD, stride=1, block=block, ahead=all_seen, **how
            )
            found.append(self._of_blocks(cells_RSC[:, : len(self.row_S)], block))
        chunk = self.grid.parts[-1]
        found.append(self._of_blocks(self._scores(chunk.keys_GTD[self.group], chunk.first), 1))
        return torch.cat(found, dim=2)

    @cached_property
    def total_RS1(self) -> Tensor:
        """float32: of all scores of a row."""
        return self.lse_RSY.logsumexp(-1, keepdim=True)

    def lines(self) -> tuple[Tensor, Tensor]:
        """float32 [R, P] twice: what all rows together attend at each position, and at each
        distance from themselves. The rows are neighbours.
        """
        positions, first = self.grid.parts[-1].stop, int(self.row_S[0])
        column_RP = torch.zeros(len(self.q_RSD), positions, device=self.grid.device)
        distance_RP = torch.zeros_like(column_RP)
        for begin, keys_TD in self._slabs():
            weight_RST = (self._scores(keys_TD, begin) - self.total_RS1).exp_()
            end = begin + len(keys_TD)
            column_RP[:, begin:end] = weight_RST.sum(1)
            # of distance first - end + 1 and more, of which those below 0 are the future's
            ahead_RW = by_distance(weight_RST)
            low = first - end + 1
            distance_RP[:, max(low, 0) : low + ahead_RW.shape[1]] += ahead_RW[:, max(-low, 0) :]
        return column_RP, distance_RP

    def recovered(self, choice: Choice) -> Tensor:
        """[R]: the share of the rows' attention that a choice reads, on average."""
        at_S = (self.row_S - self.grid.parts[-1].first) // self.grid.block
        seen_RSY = choice.blocks_HXY[:, at_S]
        read_RS = ((self.lse_RSY - self.total_RS1).exp() * seen_RSY).sum(2)
        if choice.columns_HP is not None:
            read_RS += self._beside(choice.columns_HP, seen_RSY)
        return read_RS.mean(1)

    def _beside(self, columns_RP: Tensor, seen_RSY: Tensor) -> Tensor:
        """[R, S]: what rows attend in the columns that no chosen block holds."""
        read_RS = torch.zeros(self.q_RSD.shape[:2], device=self.grid.device)
        named_P = columns_RP.any(0)
        for part in self.grid.parts:
            at_U = named_P[part.first : part.stop].nonzero()[:, 0]
            keys_UD, position_U = part.keys_GTD[self.group, at_U], at_U + part.first
            score_RSU = self._scores(keys_UD, position_U)
            weight_RSU = (score_RSU - self.total_RS1).exp_() * columns_RP[:, None, position_U]
            block_U = torch.searchsorted(self.grid.begin_Y, position_U, right=True) - 1
            read_RS += (weight_RSU * ~seen_RSY[..., block_U]).sum(2)
        return read_RS

    def _slabs(self) -> Iterator[tuple[int, Tensor]]:
        """Keys of the group that lie side by side, and the position of the first."""
        most = SLAB_BYTES[self.grid.device.type]
        count = max(COUNTED, most // (4 * self.q_RSD[..., 0].numel()))
        for part in self.grid.parts:
            for begin in range(part.first, part.stop, count):
                at = slice(begin - part.first, begin - part.first + count)
                yield begin, part.keys_GTD[self.group, at]

    def _scores(self, keys_TD: Tensor, position: int | Tensor) -> Tensor:
        """float32 [R, S, T], -inf ahead of a row; of keys at these positions, or from one on."""
        score_RST = capped(self.q_RSD.float() @ keys_TD.float().T, self.geometry)
        if isinstance(position, int):
            if position + len(keys_TD) <= self.grid.parts[-1].first:
                return score_RST
            position = torch.arange(position, position + len(keys_TD), device=self.grid.device)
        return score_RST.masked_fill_(position > self.row_S[:, None], -torch.inf)

    def _of_blocks(self, lse_RSC: Tensor, tokens: int) -> Tensor:
        """[R, S, Y] of what is of `tokens` entries each, of one part."""
        whole = self.grid.block // tokens
        lse_RSC = F.pad(lse_RSC, (0, -lse_RSC.shape[2] % whole), value=-torch.inf)
        return lse_RSC.reshape(*lse_RSC.shape[:2], -1, whole).logsumexp(-1)


def by_distance(weight_RST: Tensor) -> Tensor:
    """[R, T + S - 1]: sums of what S neighbouring rows give to T neighbouring tokens at equal
    distances, the least first, which is that of the first row from the last token.
    """
    heads, rows, tokens = weight_RST.shape
    # between zeros row s is shifted by s where rows are taken to be one element longer
    padded_RSW = F.pad(weight_RST, (rows - 1, rows - 1))
    width, ways = padded_RSW.shape[2], tokens + rows - 1
    shifted_RSE = padded_RSW.as_strided((heads, rows, ways), (rows * width, width + 1, 1))
    return shifted_RSE.sum(1).flip(-1)
