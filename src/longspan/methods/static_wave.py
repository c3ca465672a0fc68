"""RetroInfer in buffers of fixed shape: counts and places live on the device, updates beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch

from longspan.indexes.base import Budget
from longspan.indexes.wave_static import StaticClusters
from longspan.methods.frame import Reading
from longspan.methods.static import StaticStored
from longspan.methods.summaries import summarised
from longspan.types import Partial, Runs, Selection
from longspan_kernels.merge import merge

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from longspan.indexes.wave import WaveIndex
    from longspan.methods.base import LayerState
    from longspan.methods.retrieval import RetrievalState
    from longspan.types import Estimate


class StaticWave(StaticStored):
    """Steady zone and retrieved clusters in one call, estimated clusters in another.

    An update goes through the row's own state, outside the steps: the state is settled, absorbs as
    it always does, and what changed is copied into the buffers.
    """

    def __init__(self, states: Sequence[LayerState], capacity: int) -> None:
        super().__init__(states, capacity)
        mine = cast("Sequence[RetrievalState]", states)
        self.plan, self.rows = mine[0].plan, mine
        self.indexes = [cast("WaveIndex", state.index) for state in mine]
        self.clusters = StaticClusters(
            self.indexes,
            self.budget(capacity),
            capacity,
            self.plan.update_tokens,
            self.geometry,
        )
        counts = torch.zeros(2, len(states), dtype=torch.int64, device=self.geometry.device)
        self.start_B, self.stop_B = counts
        self._last: tuple[Runs, Estimate | None] | None = None
        for row in range(len(states)):
            self._refresh(row)

    def budget(self, tokens: int) -> Budget:
        """Of a search over `tokens` tokens."""
        return Budget(self.plan.retrieve.of(tokens), self.plan.estimate.of(tokens))

    def attend(self, q_XD: Tensor, length_N: Tensor) -> Partial:
        """See StaticStored."""
        retrieved, estimate = self.clusters.search(q_XD, self.geometry.scale)
        self._last = retrieved, estimate
        assert retrieved.size_NK is not None
        start_N, stop_N = (self.pool.spread(x).int() for x in (self.start_B, self.stop_B))
        runs = Runs(
            torch.cat([torch.zeros_like(stop_N)[:, None], stop_N[:, None], retrieved.start_NK], 1),
            torch.cat([start_N[:, None], (length_N - stop_N)[:, None], retrieved.size_NK], 1),
            retrieved.count_N + 2,
        )
        steady = self.plan.sink_tokens + self.plan.local_tokens + self.plan.update_tokens
        exact = self.read(q_XD, runs, steady + self.budget(self.capacity).retrieve_tokens)
        if estimate is None:
            return exact
        return merge([exact, summarised(self.geometry, q_XD, estimate)])

    def update(self, lengths: Sequence[int]) -> None:
        """See StaticLayer."""
        if max(lengths) < self._due:
            return
        for row, (state, length) in enumerate(zip(self.rows, lengths, strict=True)):
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
        retrieved, estimate = self.clusters.of(row, *self._last)
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
            self.start_B[row], self.stop_B[row] = start, stop
            self.clusters.refresh(row, self.budget(index.tokens))
