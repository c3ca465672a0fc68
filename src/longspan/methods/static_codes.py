"""Loki in buffers of fixed shape: codes of all keys, and the keys that order the best of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from longspan.indexes.codes_static import StaticCodes
from longspan.methods.static_chosen import StaticChosen

if TYPE_CHECKING:
    from collections.abc import Sequence

    from longspan.indexes.key_codes import KeyCodesIndex
    from longspan.placement.pool import Pool


class StaticScanned(StaticChosen):
    """See StaticChosen; keys are read where the steps read them."""

    searched: StaticCodes

    def searching(self, tokens: int) -> StaticCodes:
        """See StaticChosen."""
        indexes = [cast("KeyCodesIndex", state.index) for state in self.rows]
        budget, stretch = self.budget(tokens), self.plan.update_tokens
        return StaticCodes(indexes, budget, tokens, stretch, self.rows[0].geometry)

    def pooled(self, limits: Sequence[int]) -> Pool:
        """See StaticStored."""
        pool = super().pooled(limits)
        self.searched.keys_NCD = pool.keys_NCD
        return pool
