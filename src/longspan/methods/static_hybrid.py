"""The hybrid in buffers of fixed shape: tokens that are read, and clusters for all others."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch

from longspan.indexes.hybrid_static import StaticHybrids
from longspan.methods.frame import Reading
from longspan.methods.static_indexed import StaticIndexed
from longspan.methods.summaries import summarised
from longspan.types import Selection
from longspan_kernels.step_slots import zone_runs
from longspan_kernels.types import Chosen

if TYPE_CHECKING:
    from torch import Tensor

    from longspan.indexes.base import Budget
    from longspan.indexes.hybrid import HybridIndex
    from longspan.types import Estimate, Partial, Runs

ZONES = 2
"""Runs of the static tokens, before those that are found."""


class StaticHybrid(StaticIndexed):
    """Static tokens and those found in one call, clusters in another."""

    def make(self, tokens: int) -> None:
        """See StaticIndexed."""
        plan, indexes = self.plan, [cast("HybridIndex", state.index) for state in self.rows]
        geometry = self.rows[0].geometry
        self.searched = StaticHybrids(
            indexes, self.budget(tokens), tokens, plan.update_tokens, geometry
        )
        self.usual = plan.sink_tokens + plan.local_tokens + plan.update_tokens + self.searched.most
        self._last: tuple[Runs, Estimate | None] | None = None

    @property
    def runs(self) -> tuple[int, int]:
        """See StaticIndexed."""
        return self.searched.most + ZONES, self.searched.most + ZONES

    @property
    def single(self) -> bool:
        """See StaticIndexed."""
        return True

    def refresh(self, row: int, budget: Budget) -> None:
        """See StaticIndexed."""
        self.searched.refresh(row, budget)

    def attend(self, q_XD: Tensor, at_B: Tensor) -> list[Partial]:
        """See StaticStored."""
        slot_NK, count_N, estimate = self.searched.search(q_XD, self.geometry.scale)
        runs = zone_runs(at_B, len(count_N), Chosen(self.indexed_2B, slot_NK, count_N))
        self._last = runs, estimate
        parts = [self.pool.attend(q_XD, runs, self.usual)]
        if estimate is not None:
            parts.append(summarised(self.geometry, q_XD, estimate, stacked=True))
        return parts

    def reading(self, row: int, length: int) -> Reading:
        """See StaticStored."""
        if not self.rows[row].index.tokens or self._last is None:
            return super().reading(row, length)
        runs, estimate = self._last
        heads = slice(row * self.geometry.kv_heads, (row + 1) * self.geometry.kv_heads)
        mine = None if estimate is None else estimate.of(heads)
        estimated_G = torch.zeros(1) if mine is None else mine.ids.count_N
        distances, index_bytes = self.searched.cost(row, estimated_G)
        selection = Selection(self.steady_zones(row, length), runs.of(heads, ZONES), mine)
        return Reading([], selection, distances=distances, index_bytes=index_bytes)
