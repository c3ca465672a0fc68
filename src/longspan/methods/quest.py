"""Quest: pages of consecutive tokens, chosen by a bound of what the query could find in them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from longspan.indexes.pages import PageIndex
from longspan.methods.retrieval import RetrievalState
from longspan.methods.vector_retrieval import ShareRetrieval
from longspan.options import Count, Layers, Tokens, settings
from longspan_kernels.types import Sharing

if TYPE_CHECKING:
    from longspan.indexes.base import KeyIndex
    from longspan.methods.retrieval import Plan
    from longspan.types import LayerGeometry


@settings
class Quest(ShareRetrieval):
    """Tang et al., "Quest: Query-Aware Sparsity for Efficient Long-Context LLM Inference",
    arXiv 2406.10774.

    Beside the settings of ShareRetrieval, whose budgets and update_tokens are rounded up to whole
    pages, of which three are read at least. page_tokens: tokens of a page. share: pages chosen a
    query head, as in the paper, or a KV head, by the largest bound of its group.

    The paper reads 512 to 4,096 tokens whatever the context; the default is a share of it, to be
    compared with RetroInfer at equal tokens. The page being written is read in full, as are up to
    update_tokens before it, which enter the index together; the paper has no static tokens.
    """

    name: ClassVar[str] = "quest"

    sink_tokens: Tokens = 0
    local_tokens: Tokens = 0
    update_tokens: Count = 64
    dense_layers: Layers = (0, 1)
    page_tokens: Count = 16
    share: Sharing = "query_head"

    def index(self, geometry: LayerGeometry) -> PageIndex:
        """See VectorRetrieval."""
        return PageIndex(self.page_tokens, self.share)

    def state(self, geometry: LayerGeometry, plan: Plan, index: KeyIndex) -> QuestState:
        """See VectorRetrieval."""
        pages = -(-self.update_tokens // self.page_tokens)
        plan = replace(plan, update_tokens=pages * self.page_tokens)
        return QuestState(geometry, plan, index)


class QuestState(RetrievalState):
    """One layer of one sequence; only whole pages are indexed."""

    index: PageIndex

    def _waiting(self) -> int:
        waiting = super()._waiting()
        return waiting - waiting % self.index.page_tokens
