"""Steady zone and, beside it, a set of tokens chosen anew for every query: the frame of oracles."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

import torch

from longspan.methods.frame import Reading, StoredState
from longspan.types import Selection
from longspan_kernels.dense_decode.reference import scores

if TYPE_CHECKING:
    from torch import Tensor

    from longspan.placement.base import OnePlace
    from longspan.types import LayerGeometry, Runs


class ChosenState(StoredState):
    """Attends sink, local window and what `choose` picks between them."""

    def __init__(
        self,
        geometry: LayerGeometry,
        placement: OnePlace,
        *,
        sink: int,
        local: int,
    ) -> None:
        super().__init__(geometry, placement)
        self.sink, self.local = sink, local
        self.scored = 0

    @abstractmethod
    def choose(self, q_HD: Tensor, start: int, stop: int) -> Runs:
        """Slots out of [start, stop) for this query."""

    def exact_scores(self, q_HD: Tensor, start: int, stop: int) -> Tensor:
        """float32 [H, T]: the attention scores of the slots [start, stop)."""
        scale, softcap = self.geometry.scale, self.geometry.softcap
        self.scored = stop - start
        parts = self.store.slices(start, stop)
        score_GRTs = [scores(q_HD, part.keys_GTD, scale, softcap) for part in parts]
        return torch.cat(score_GRTs, dim=-1).flatten(0, 1)

    def read(self, q_HD: Tensor) -> Reading:
        """See StoredState."""
        ranges = self.zones(self.sink, self.local)
        start, stop = self.sink, len(self.store) - self.local
        if start >= stop:
            return self.read_steady(q_HD, ranges)
        self.scored = 0
        runs = self.choose(q_HD, start, stop)
        partials = self.placement.attend_ranges(q_HD, ranges)
        partials += self.placement.attend_runs(q_HD, runs, (start, stop))
        index_bytes = self.scored * self.geometry.kv_heads * self.geometry.head_size
        return Reading(
            partials,
            Selection(ranges, runs),
            distances=float(self.scored),
            index_bytes=float(index_bytes * self.geometry.dtype.itemsize),
        )
