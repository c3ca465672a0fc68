"""Methods that retrieve whole pages of consecutive tokens."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, cast

from longspan.indexes.paged_static import StaticPages, widths
from longspan.methods.retrieval import RetrievalState
from longspan.methods.static import StaticStored, elsewhere
from longspan.methods.static_chosen import listed_bytes
from longspan.methods.static_paged import StaticPaged
from longspan.methods.vector_retrieval import ShareRetrieval
from longspan.options import Count, settings
from longspan.types import StepBytes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from longspan.indexes.base import KeyIndex
    from longspan.indexes.paged import PagedIndex
    from longspan.methods.base import LayerState
    from longspan.methods.plan import Plan
    from longspan.types import LayerGeometry


@settings
class PagedRetrieval(ShareRetrieval):
    """Beside the settings of ShareRetrieval, whose budgets and update_tokens are rounded up to
    whole pages: page_tokens, the tokens of one.
    """

    page_tokens: Count = 16

    def state(self, geometry: LayerGeometry, plan: Plan, index: KeyIndex) -> PagedState:
        """See VectorRetrieval."""
        return PagedState(geometry, self.whole(plan), index)

    def whole(self, plan: Plan) -> Plan:
        """The plan, with updates of whole pages."""
        pages = -(-self.update_tokens // self.page_tokens)
        return replace(plan, update_tokens=pages * self.page_tokens)

    def static_obstacle(self, geometry: LayerGeometry) -> str | None:
        """See Method."""
        return elsewhere(self.placement, geometry, self.dense_layers)

    def static_layer(self, states: Sequence[LayerState], limits: Sequence[int]) -> StaticStored:
        """See Method."""
        paged = isinstance(states[0], PagedState)
        return StaticPaged(states, limits) if paged else StaticStored(states, limits)

    def searched_bytes(
        self, geometry: LayerGeometry, held: Sequence[int], limits: Sequence[int]
    ) -> StepBytes:
        """See VectorRetrieval."""
        index, tokens = cast("PagedIndex", self.index(geometry)), max(limits)
        pages = StaticPages.bytes_of(index, len(held), tokens, geometry)
        most = index.most(self.budget(geometry.layer, tokens))
        listed = listed_bytes(len(held) * widths(index, geometry)[0], most)
        return StepBytes(pages.kept + listed, pages.passing, moved=True)


class PagedState(RetrievalState):
    """One layer of one sequence; only whole pages are indexed."""

    index: PagedIndex

    def _waiting(self) -> int:
        waiting = super()._waiting()
        return waiting - waiting % self.index.page_tokens
