"""The hybrid in buffers of fixed shape: tokens that are read, and clusters for all others."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, cast

from longspan.indexes.hybrid_static import StaticHybrids
from longspan.methods.static_chosen import StaticChosen
from longspan.methods.summaries import summarised

if TYPE_CHECKING:
    from torch import Tensor

    from longspan.indexes.hybrid import HybridIndex
    from longspan.methods.frame import Reading
    from longspan.types import Partial


class StaticHybrid(StaticChosen):
    """See StaticChosen; clusters are attended in a call of their own."""

    searched: StaticHybrids

    def searching(self, tokens: int) -> StaticHybrids:
        """See StaticChosen."""
        indexes = [cast("HybridIndex", state.index) for state in self.rows]
        budget, stretch = self.budget(tokens), self.plan.update_tokens
        return StaticHybrids(indexes, budget, tokens, stretch, self.rows[0].geometry)

    def attend(self, q_XD: Tensor, at_B: Tensor) -> list[Partial]:
        """See StaticStored."""
        parts = super().attend(q_XD, at_B)
        if (estimate := self.searched.estimate) is not None:
            parts.append(summarised(self.geometry, q_XD, estimate, stacked=True))
        return parts

    def reading(self, row: int, length: int) -> Reading:
        """See StaticStored."""
        reading = super().reading(row, length)
        if reading.selection.retrieved is None:
            return reading
        estimated = self.searched.estimate_of(row)
        return replace(reading, selection=replace(reading.selection, estimated=estimated))
