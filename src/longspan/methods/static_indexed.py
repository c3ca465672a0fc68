"""Retrieval through an index in buffers of fixed shape: updates of the index lie between steps."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, cast

import torch

from longspan.indexes.base import Budget
from longspan.methods.static import StaticStored
from longspan.placement.cached_pool import CachedPool
from longspan.placement.wave_buffer import WaveBuffer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from longspan.methods.base import LayerState
    from longspan.methods.retrieval import RetrievalState
    from longspan.placement.pool import Pool


class StaticIndexed(StaticStored):
    """What its subclasses share.

    An update goes through the row's own state, outside the steps: the state is settled, absorbs as
    it always does, and what changed is copied into the buffers.
    """

    def __init__(self, states: Sequence[LayerState], limits: Sequence[int]) -> None:
        mine = cast("Sequence[RetrievalState]", states)
        self.plan, self.rows = mine[0].plan, mine
        self.make(max(limits))
        super().__init__(states, limits)
        shape, device = (2, len(states)), self.geometry.device
        self.indexed_2B = torch.zeros(shape, dtype=torch.int64, device=device)
        for row in range(len(states)):
            self._refresh(row)

    @abstractmethod
    def make(self, tokens: int) -> None:
        """Buffers for what the rows' indexes hold of so many tokens."""

    @property
    @abstractmethod
    def runs(self) -> tuple[int, int]:
        """The most runs that a step reads of a KV head, and how many it is meant to."""

    @property
    def single(self) -> bool:
        """Whether each of these runs is a token."""
        return False

    @abstractmethod
    def refresh(self, row: int, budget: Budget) -> None:
        """Take over what the row's index, which is not empty, holds now."""

    def pooled(self, limits: Sequence[int]) -> Pool:
        """See StaticStored."""
        placements = [state.placement for state in self.rows]
        if not isinstance(placements[0], WaveBuffer):
            return super().pooled(limits)
        width, usual = self.runs
        return CachedPool(
            self.geometry,
            cast("list[WaveBuffer]", placements),
            limits,
            sink_tokens=self.plan.sink_tokens,
            width=width,
            usual=usual,
            single=self.single,
        )

    def prefetch(self) -> None:
        """See StaticLayer."""
        if isinstance(self.pool, CachedPool):
            self.pool.prefetch([state.expected() for state in self.rows])

    def steady_zones(self, row: int, length: int) -> tuple[tuple[int, int], ...]:
        """Slots of a row of so many tokens that are read whatever is asked for."""
        start, stop = self.rows[row].indexed
        return self.rows[row].zones(start, length - stop, length)

    def budget(self, tokens: int) -> Budget:
        """Of a search over `tokens` tokens."""
        return Budget(self.plan.retrieve.of(tokens), self.plan.estimate.of(tokens))

    def absorb(self, lengths: Sequence[int], decoding: Sequence[int]) -> None:
        """See StaticStored."""
        if max(lengths) < min(state.next_update for state in self.rows):
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

    def _refresh(self, row: int) -> None:
        state = self.rows[row]
        if state.index.tokens:
            self.indexed_2B[0, row], self.indexed_2B[1, row] = state.indexed
            # an index that reads keys reads them in the buffers, lest others be held for it
            state.index.keys_at([each.keys_GTD for each in state.store.slices(*state.indexed)])
            self.refresh(row, self.budget(state.index.tokens))
