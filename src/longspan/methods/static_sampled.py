"""MagicPIG in buffers of fixed shape: hash tables stay as they were made, a search a row."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from longspan.methods.static import StaticStored
from longspan.placement.part import Part
from longspan_kernels.hash_tables import codes
from longspan_kernels.step_slots import zone_runs
from longspan_kernels.types import Chosen, Partial

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from longspan.indexes.lsh import Collisions
    from longspan.methods.base import LayerState
    from longspan.methods.frame import Reading
    from longspan.methods.magicpig import MagicPIGState

BEHIND = 512
"""About so many tokens are read that are not there yet. Only divides the work."""


class StaticSampled(StaticStored):
    """What lies around the hashed slots of all rows in one call, what is sampled row by row. Rows
    too short for tables are attended in full.
    """

    states: Sequence[MagicPIGState]

    def __init__(self, states: Sequence[LayerState], limits: Sequence[int]) -> None:
        super().__init__(states, limits)
        heads, device = len(self.pool.keys_NCD), self.geometry.device
        indexes = [state.index for state in self.states]
        slots = [(0, 0) if index is None else index.slots for index in indexes]
        indexed_2B = torch.tensor(slots, device=device).T.contiguous()
        self.around = Chosen.nothing(indexed_2B, heads)
        hashed = [stop - start for start, stop in slots]
        self.most = max(hashed)
        held = (len(state.store) for state in self.states)
        self.usual = max(map(int.__sub__, held, hashed)) + BEHIND
        self.planes_LDK = next((x.planes_LDK for x in indexes if x is not None), None)
        """The same for all rows: they depend on the layer."""
        self._hits: list[Collisions | None] = [None] * len(indexes)

    def attend(self, q_XD: Tensor, at_B: Tensor) -> list[Partial]:
        """See StaticStored."""
        runs = zone_runs(at_B, len(self.pool.keys_NCD), self.around)
        around = self.pool.attend(q_XD, runs, self.usual)
        if self.planes_LDK is None:
            return [around]
        code_XL = codes(q_XD, self.planes_LDK).T
        rows = zip(q_XD.chunk(len(self.states)), code_XL.chunk(len(self.states)), strict=True)
        parts = [self.sample(row, *given) for row, given in enumerate(rows)]
        there = next(part for part in parts if part is not None)
        outs, lses = zip(*(part or nothing_like(there) for part in parts), strict=True)
        return [around, Partial(torch.cat(outs, 1), torch.cat(lses, 1))]

    def sample(self, row: int, q_HD: Tensor, code_HL: Tensor) -> Partial | None:
        """Attention over what a row's tables find, in as many pieces as the other rows'."""
        state = self.states[row]
        if state.index is None:
            return None
        hits = self._hits[row] = state.index.look_up(code_HL, whole=True)
        first, stop = state.index.slots
        keys_GCD, values_GCD = self.pool.keys_BGCD[row], self.pool.values_BGCD[row]
        part = Part(first, keys_GCD[:, first:stop], values_GCD[:, first:stop])
        return state.attend_sampled(q_HD, part, hits.found, expected=self.most, stacked=True)

    def reading(self, row: int, length: int) -> Reading:
        """See StaticStored."""
        state, hits = self.states[row], self._hits[row]
        if state.index is None or hits is None:
            return super().reading(row, length)
        return state.sampled(state.index, hits, length)


def nothing_like(part: Partial) -> Partial:
    """Attention over no token, in the shape of another."""
    return Partial(torch.zeros_like(part.out), torch.full_like(part.lse, -torch.inf))
