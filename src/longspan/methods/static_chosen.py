"""Static tokens and what a search of fixed shape chooses beside them: pages, or tokens."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Protocol

from longspan.methods.frame import Reading
from longspan.methods.static_indexed import StaticIndexed
from longspan.types import Partial, Runs, Selection
from longspan_kernels.step_slots import zone_runs
from longspan_kernels.types import Chosen

if TYPE_CHECKING:
    from torch import Tensor

    from longspan.indexes.base import Budget

ZONES = 2
"""Runs of the static tokens, before those that are chosen."""


def listed_bytes(sets: int, most: int) -> int:
    """Of what so many sets of heads read, at most so many chosen runs each: starts and sizes."""
    return sets * (8 * (most + ZONES) + 4)


class Searched(Protocol):
    """The indexes of several rows in buffers of fixed shape."""

    most: int
    """Runs that are read at once."""
    run_tokens: int
    """Tokens of one of them."""

    def refresh(self, row: int, budget: Budget) -> None:
        """Take over what the row's index, which is not empty, holds now."""

    def search(self, q_XD: Tensor, scale: float) -> tuple[Tensor, ...]:
        """What the query heads of all rows read, as Chosen has it beside what is indexed. Waits for
        nothing.
        """

    def cost(self, row: int) -> tuple[float, float]:
        """Distances that a search of the row takes, and bytes of its index that it reads."""


class StaticChosen(StaticIndexed):
    """Static tokens and the chosen runs in one call."""

    @abstractmethod
    def searching(self, tokens: int) -> Searched:
        """Buffers for what the rows' indexes hold of so many tokens."""

    def make(self, tokens: int) -> None:
        """See StaticIndexed."""
        self.searched, plan = self.searching(tokens), self.plan
        self.usual = plan.sink_tokens + plan.local_tokens + plan.update_tokens
        self.usual += self.searched.most * self.searched.run_tokens
        self._last: Runs | None = None

    @property
    def runs(self) -> tuple[int, int]:
        """See StaticIndexed."""
        return self.searched.most + ZONES, self.searched.most + ZONES

    @property
    def single(self) -> bool:
        """See StaticIndexed."""
        return self.searched.run_tokens == 1

    def refresh(self, row: int, budget: Budget) -> None:
        """See StaticIndexed."""
        self.searched.refresh(row, budget)

    def attend(self, q_XD: Tensor, at_B: Tensor) -> list[Partial]:
        """See StaticStored."""
        chosen = Chosen(self.indexed_2B, *self.searched.search(q_XD, self.geometry.scale))
        self._last = zone_runs(at_B, len(chosen.count_N), chosen)
        return [self.pool.attend(q_XD, self._last, self.usual)]

    def reading(self, row: int, length: int) -> Reading:
        """See StaticStored."""
        if not self.rows[row].index.tokens or self._last is None:
            return super().reading(row, length)
        sets = len(self._last.count_N) // len(self.rows)
        chosen = self._last.of(slice(row * sets, (row + 1) * sets), ZONES)
        selection = Selection(self.steady_zones(row, length), chosen)
        distances, index_bytes = self.searched.cost(row)
        return Reading([], selection, distances=distances, index_bytes=index_bytes)
