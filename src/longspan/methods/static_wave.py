"""RetroInfer in buffers of fixed shape: counts and places live on the device, updates beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch

from longspan.indexes.base import Budget
from longspan.indexes.wave_static import StaticClusters
from longspan.methods.frame import Reading
from longspan.methods.static import StaticStored
from longspan.methods.summaries import summarised
from longspan.placement.cached_pool import CachedPool
from longspan.placement.wave_buffer import WaveBuffer
from longspan.types import Partial, Runs, Selection
from longspan_kernels.merge import merge
from longspan_kernels.step_slots import zone_runs
from longspan_kernels.types import Chosen

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from longspan.indexes.wave import WaveIndex
    from longspan.methods.base import LayerState
    from longspan.methods.retrieval import RetrievalState
    from longspan.placement.pool import Pool
    from longspan.types import Estimate


BEYOND = 6
"""So many times the budget's tokens are read with a tolerance (the embedded model at 64k): what it
adds, and clusters that weigh most are large. Only divides the work."""


class StaticWave(StaticStored):
    """Steady zone and retrieved clusters in one call, estimated clusters in another; where a
    tolerance asks what the steady zone weighs before clusters are chosen, it has a call of its own.

    An update goes through the row's own state, outside the steps: the state is settled, absorbs as
    it always does, and what changed is copied into the buffers.
    """

    def __init__(self, states: Sequence[LayerState], limits: Sequence[int]) -> None:
        mine = cast("Sequence[RetrievalState]", states)
        self.plan, self.rows = mine[0].plan, mine
        self.indexes = [cast("WaveIndex", state.index) for state in mine]
        self.clusters = StaticClusters(
            self.indexes,
            self.budget(max(limits)),
            max(limits),
            self.plan.update_tokens,
            mine[0].geometry,
        )
        self.steady = self.plan.sink_tokens + self.plan.local_tokens + self.plan.update_tokens
        self.zones = 0 if self.clusters.tolerance else 2
        """Runs of the steady zone among those that are attended with the clusters."""
        super().__init__(states, limits)
        shape, device = (2, len(states)), self.geometry.device
        self.indexed_2B = torch.zeros(shape, dtype=torch.int64, device=device)
        self._last: tuple[Runs, Estimate | None] | None = None
        for row in range(len(states)):
            self._refresh(row)

    def pooled(self, limits: Sequence[int]) -> Pool:
        """See StaticStored."""
        placements = [state.placement for state in self.rows]
        if not isinstance(placements[0], WaveBuffer):
            return super().pooled(limits)
        return CachedPool(
            self.geometry,
            cast("list[WaveBuffer]", placements),
            limits,
            sink_tokens=self.plan.sink_tokens,
            width=self.clusters.width + self.zones,
            usual=self.clusters.retrieve + self.zones,
        )

    def prefetch(self) -> None:
        """See StaticLayer."""
        if isinstance(self.pool, CachedPool):
            self.pool.prefetch([state.expected() for state in self.rows])

    def budget(self, tokens: int) -> Budget:
        """Of a search over `tokens` tokens."""
        return Budget(self.plan.retrieve.of(tokens), self.plan.estimate.of(tokens))

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

    def absorb(self, lengths: Sequence[int], decoding: Sequence[int]) -> None:
        """See StaticStored."""
        if max(lengths) < self._due:
            return
        for row in decoding:
            state, length = self.rows[row], lengths[row]
            if length < state.next_update:
                continue
            self.pool.settle(row, length)
            before = state.store.frozen
            state.absorb(self.plan.update_tokens, generated=True)
            self.pool.take(row, before, state.store.frozen)
            self.pool.settle(row, length)
            self._refresh(row)

    def reading(self, row: int, length: int) -> Reading:
        """See StaticStored."""
        start, stop = self.rows[row].indexed
        if start == stop or self._last is None:
            return super().reading(row, length)
        runs, estimate = self.clusters.of(row, *self._last)
        assert runs.size_NK is not None
        retrieved = Runs(
            runs.start_NK[:, self.zones :],
            runs.size_NK[:, self.zones :],
            runs.count_N - self.zones,
        )
        estimated_G = torch.zeros(1) if estimate is None else estimate.ids.count_N
        clusters = float(self.indexes[row].clusters)
        return Reading(
            [],
            Selection(((0, start), (stop, length)), retrieved, estimate),
            distances=clusters,
            index_bytes=self.indexes[row].bytes_read(clusters, estimated_G),
        )

    @property
    def _due(self) -> int:
        """No row has to be updated before one of them holds so many tokens."""
        return min(state.next_update for state in self.rows)

    def _refresh(self, row: int) -> None:
        """Tell the buffers of what the row's index holds now."""
        index, (start, stop) = self.indexes[row], self.rows[row].indexed
        if index.tokens:
            self.indexed_2B[0, row], self.indexed_2B[1, row] = start, stop
            self.clusters.refresh(row, self.budget(index.tokens))
