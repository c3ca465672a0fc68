"""The frame of sparse prefills: a choice of blocks for every part of the store, and the attention
that reads no other.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from longspan.prefill.base import Prefill
from longspan.prefill.full import attend_part
from longspan_kernels.block_sparse_prefill import block_sparse_prefill
from longspan_kernels.merge import merge

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from torch import Tensor

    from longspan.placement.part import Part
    from longspan.types import LayerGeometry, Partial


@dataclass(frozen=True)
class Choice:
    """What the query heads of a chunk read: blocks of all parts side by side, and columns by
    position.
    """

    blocks_HXY: Tensor
    columns_HP: Tensor | None = None


class Grid:
    """The blocks of a chunk's positions (X) and those of the parts it may read (Y), the chunk being
    the last. Each part begins a block of its own; positions count from the prompt's beginning.
    """

    def __init__(self, parts: Sequence[Part], block: int) -> None:
        self.parts, self.block = parts, block
        chunk = parts[-1]
        self.device = chunk.keys_GTD.device
        self.row_X = torch.arange(chunk.first, chunk.stop, block, device=self.device)
        starts = [torch.arange(p.first, p.stop, block, device=self.device) for p in parts]
        self.sizes = [len(start_Y) for start_Y in starts]
        self.begin_Y = torch.cat(starts)

    @property
    def ahead_XY(self) -> Tensor:
        """How far the first position of a block of rows is ahead of that of a block of entries."""
        return self.row_X[:, None] - self.begin_Y

    def of_part(self, choice: Choice, number: int) -> tuple[Tensor, Tensor | None]:
        """The blocks and columns of one part."""
        first, part = sum(self.sizes[:number]), self.parts[number]
        blocks_HXY = choice.blocks_HXY[..., first : first + self.sizes[number]]
        columns_HP = choice.columns_HP
        return blocks_HXY, None if columns_HP is None else columns_HP[:, part.first : part.stop]


class SparsePrefill(Prefill):
    """Reads chosen blocks only. A part whose tokens an index has reordered, and a chunk shorter
    than a block, are read in full.
    """

    @property
    @abstractmethod
    def block_tokens(self) -> int:
        """Edge of a block."""

    @abstractmethod
    def choose(self, geometry: LayerGeometry, q_HQD: Tensor, grid: Grid) -> Choice | None:
        """What this chunk reads; None: everything. Every position must see itself."""

    def attend(
        self, geometry: LayerGeometry, q_HQD: Tensor, chunk: Part, past: Iterable[Part]
    ) -> Partial:
        """See Prefill. All parts are held at once, as the choice is made by looking at their
        keys.
        """
        parts = [*past, chunk]
        ordered = [part for part in parts if part.positions_GT is None]
        grid, choice = Grid(ordered, self.block_tokens), None
        if q_HQD.shape[1] >= self.block_tokens:
            choice = self.choose(geometry, q_HQD, grid)
        if choice is None:
            return merge([attend_part(geometry, q_HQD, p, causal=p is chunk) for p in parts])
        done = [
            attend_part(geometry, q_HQD, part, causal=False)
            for part in parts
            if part.positions_GT is not None
        ]
        for number, part in enumerate(ordered):
            blocks_HXY, columns_HT = grid.of_part(choice, number)
            if part is not chunk and not (
                blocks_HXY.any() or (columns_HT is not None and columns_HT.any())
            ):
                continue
            done.append(
                block_sparse_prefill(
                    q_HQD,
                    part.keys_GTD,
                    part.values_GTD,
                    blocks_HXY,
                    columns_HT=columns_HT,
                    block=self.block_tokens,
                    scale=geometry.scale,
                    softcap=geometry.softcap,
                    causal=part is chunk,
                )
            )
        return merge(done)


def capped(score: Tensor, geometry: LayerGeometry) -> Tensor:
    """Raw products, scaled and soft-capped."""
    scaled = score * geometry.scale
    cap = geometry.softcap
    return scaled if cap is None else cap * torch.tanh(scaled / cap)
