"""What the reference's look-ups and updates answer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(slots=True)
class Listed:
    """Pages to copy: a list of (source, target, size) a row."""

    rows: list[list[tuple[int, int, int]]]

    @property
    def width(self) -> int:
        """Pages of the longest row."""
        return max(map(len, self.rows), default=0)

    @property
    def row_count(self) -> int:
        """Rows."""
        return len(self.rows)

    def write(self, sources: Tensor, targets: Tensor, sizes: Tensor, counts: Tensor) -> None:
        """Write the pages to arrays [N, P]."""
        for row, pages in enumerate(self.rows):
            counts[row] = len(pages)
            for column, array in enumerate((sources, targets, sizes)):
                values = [page[column] for page in pages]
                array[row, : len(pages)] = torch.tensor(values, dtype=torch.int32)


@dataclass(frozen=True, slots=True)
class Read:
    """A block that a step reads."""

    block: int
    row: int
    start: int
    size: int
    target: int
    hit: bool


@dataclass(slots=True)
class LookUp(Listed):
    """What a look-up found."""

    reads: list[Read] = field(default_factory=list)
    begins: dict[tuple[int, int], int] = field(default_factory=dict)
    lengths: list[int] = field(default_factory=list)
    layer: int = 0
    hit_blocks: int = 0
    miss_blocks: int = 0
    hit_entries: int = 0
    miss_entries: int = 0

    @property
    def length(self) -> int:
        """Entries of the longest row of the buffer."""
        return max(self.lengths, default=0)

    def write_targets(self, targets: Tensor) -> None:
        """Write where each run begins in the buffer, [N, K]."""
        for place, target in self.begins.items():
            targets[place] = target


@dataclass(slots=True)
class Admission(Listed):
    """What an update let in."""

    admitted_blocks: int = 0
    admitted_pages: int = 0
    admitted_entries: int = 0
    evicted_blocks: int = 0
