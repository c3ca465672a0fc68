"""Methods that retrieve whole pages of consecutive tokens."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from longspan.methods.retrieval import RetrievalState
from longspan.methods.vector_retrieval import ShareRetrieval
from longspan.options import Count, settings

if TYPE_CHECKING:
    from longspan.indexes.base import KeyIndex
    from longspan.indexes.paged import PagedIndex
    from longspan.methods.retrieval import Plan
    from longspan.types import LayerGeometry


@settings
class PagedRetrieval(ShareRetrieval):
    """Beside the settings of ShareRetrieval, whose budgets and update_tokens are rounded up to
    whole pages: page_tokens, the tokens of one.
    """

    page_tokens: Count = 16

    def state(self, geometry: LayerGeometry, plan: Plan, index: KeyIndex) -> PagedState:
        """See VectorRetrieval."""
        pages = -(-self.update_tokens // self.page_tokens)
        plan = replace(plan, update_tokens=pages * self.page_tokens)
        return PagedState(geometry, plan, index)


class PagedState(RetrievalState):
    """One layer of one sequence; only whole pages are indexed."""

    index: PagedIndex

    def _waiting(self) -> int:
        waiting = super()._waiting()
        return waiting - waiting % self.index.page_tokens
