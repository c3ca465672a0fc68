"""Pages of consecutive tokens in buffers of fixed shape: Quest, ShadowKV and their like."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from longspan.indexes.paged_static import StaticPages
from longspan.methods.frame import Reading
from longspan.methods.static_indexed import StaticIndexed
from longspan.types import Partial, Runs, Selection
from longspan_kernels.step_slots import zone_runs
from longspan_kernels.types import Chosen

if TYPE_CHECKING:
    from torch import Tensor

    from longspan.indexes.base import Budget
    from longspan.indexes.paged import PagedIndex

ZONES = 2
"""Runs of the static tokens, before those of the pages."""


class StaticPaged(StaticIndexed):
    """Static tokens and the chosen pages in one call."""

    def make(self, tokens: int) -> None:
        """See StaticIndexed."""
        plan, geometry = self.plan, self.rows[0].geometry
        indexes = [cast("PagedIndex", state.index) for state in self.rows]
        self.pages = StaticPages(indexes, self.budget(tokens), tokens, geometry)
        self.usual = plan.sink_tokens + plan.local_tokens + plan.update_tokens
        self.usual += self.pages.most * indexes[0].page_tokens
        self._last: Runs | None = None

    @property
    def runs(self) -> tuple[int, int]:
        """See StaticIndexed."""
        return self.pages.most + ZONES, self.pages.most + ZONES

    def refresh(self, row: int, budget: Budget) -> None:
        """See StaticIndexed."""
        self.pages.refresh(row, budget)

    def attend(self, q_XD: Tensor, at_B: Tensor) -> list[Partial]:
        """See StaticStored."""
        chosen = Chosen(self.indexed_2B, *self.pages.search(q_XD, self.geometry.scale))
        self._last = zone_runs(at_B, len(chosen.count_N), chosen)
        return [self.pool.attend(q_XD, self._last, self.usual)]

    def reading(self, row: int, length: int) -> Reading:
        """See StaticStored."""
        index = self.pages.indexes[row]
        if not index.tokens or self._last is None:
            return super().reading(row, length)
        pages = self._last.of(self.pages.rows_of(row), ZONES)
        return Reading(
            [],
            Selection(self.steady_zones(row, length), pages),
            distances=index.distances,
            index_bytes=float(index.nbytes),
        )
