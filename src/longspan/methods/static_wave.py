"""RetroInfer in buffers of fixed shape: counts and places live on the device, updates beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch

from longspan.indexes.wave_static import StaticClusters
from longspan.methods.frame import Reading
from longspan.methods.static_indexed import StaticIndexed
from longspan.methods.summaries import summarised
from longspan.types import Partial, Runs, Selection
from longspan_kernels.merge import merge
from longspan_kernels.step_slots import zone_runs
from longspan_kernels.types import Chosen

if TYPE_CHECKING:
    from torch import Tensor

    from longspan.indexes.base import Budget
    from longspan.indexes.wave import WaveIndex
    from longspan.types import Estimate


BEYOND = 6
"""So many times the budget's tokens are read with a tolerance (the embedded model at 64k): what it
adds, and clusters that weigh most are large. Only divides the work."""


class StaticWave(StaticIndexed):
    """Steady zone and retrieved clusters in one call, estimated clusters in another; where a
    tolerance asks what the steady zone weighs before clusters are chosen, it has a call of its own.
    """

    def make(self, tokens: int) -> None:
        """See StaticIndexed."""
        plan = self.plan
        self.indexes = [cast("WaveIndex", state.index) for state in self.rows]
        self.clusters = StaticClusters(
            self.indexes,
            self.budget(tokens),
            tokens,
            plan.update_tokens,
            self.rows[0].geometry,
        )
        self.steady = plan.sink_tokens + plan.local_tokens + plan.update_tokens
        self.zones = 0 if self.clusters.tolerance else 2
        """Runs of the steady zone among those that are attended with the clusters."""
        self._last: tuple[Runs, Estimate | None] | None = None

    @property
    def runs(self) -> tuple[int, int]:
        """See StaticIndexed."""
        return self.clusters.width + self.zones, self.clusters.retrieve + self.zones

    def refresh(self, row: int, budget: Budget) -> None:
        """See StaticIndexed."""
        self.clusters.refresh(row, budget)

    def attend(self, q_XD: Tensor, at_B: Tensor) -> list[Partial]:
        """See StaticStored."""
        heads, expected = len(self.pool.keys_NCD), self.budget(self.capacity).retrieve_tokens
        parts, exact_lse_X = [], None
        if self.zones:
            expected += self.steady
        else:
            expected *= BEYOND
            always = zone_runs(at_B, heads, Chosen(self.indexed_2B, *self.clusters.none))
            parts = [self.pool.attend_near(q_XD, always, self.steady)]
            exact_lse_X = merge(parts, stacked=True).lse
        clusters, estimate = self.clusters.search(q_XD, self.geometry.scale, exact_lse_X)
        chosen = Chosen(self.indexed_2B, *clusters)
        runs = zone_runs(at_B, heads, chosen, zones=self.zones > 0)
        self._last = runs, estimate
        parts.append(self.pool.attend(q_XD, runs, expected))
        if estimate is not None:
            parts.append(summarised(self.geometry, q_XD, estimate, stacked=True))
        return parts

    def reading(self, row: int, length: int) -> Reading:
        """See StaticStored."""
        if not self.indexes[row].tokens or self._last is None:
            return super().reading(row, length)
        runs, estimate = self._last
        retrieved, estimate = self.clusters.of(row, runs, self.zones, estimate)
        estimated_G = torch.zeros(1) if estimate is None else estimate.ids.count_N
        clusters = float(self.indexes[row].clusters)
        return Reading(
            [],
            Selection(self.steady_zones(row, length), retrieved, estimate),
            distances=clusters,
            index_bytes=self.indexes[row].bytes_read(clusters, estimated_G),
        )
