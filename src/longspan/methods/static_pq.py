"""Tokens by product-quantised keys in buffers of fixed shape: PQCache."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from longspan.indexes.pq_static import StaticProducts
from longspan.methods.static_chosen import StaticChosen

if TYPE_CHECKING:
    from longspan.indexes.pq import PQIndex


class StaticPQ(StaticChosen):
    """See StaticChosen."""

    def searching(self, tokens: int) -> StaticProducts:
        """See StaticChosen."""
        indexes = [cast("PQIndex", state.index) for state in self.rows]
        return StaticProducts(indexes, self.budget(tokens), tokens, self.rows[0].geometry)
