"""Pages of consecutive tokens in buffers of fixed shape: Quest, ShadowKV and their like."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from longspan.indexes.paged_static import StaticPages
from longspan.methods.static_chosen import StaticChosen

if TYPE_CHECKING:
    from longspan.indexes.paged import PagedIndex


class StaticPaged(StaticChosen):
    """See StaticChosen."""

    def searching(self, tokens: int) -> StaticPages:
        """See StaticChosen."""
        indexes = [cast("PagedIndex", state.index) for state in self.rows]
        return StaticPages(indexes, self.budget(tokens), tokens, self.rows[0].geometry)
