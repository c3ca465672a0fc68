"""Quest's index: pages of consecutive tokens, known by the ranges of their keys' coordinates."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch

from longspan.indexes.base import SearchResult
from longspan.indexes.paged import PagedIndex

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from longspan.indexes.base import Budget
    from longspan_kernels.types import Sharing

LEAST_PAGES = 3
"""Read whatever the budget."""


class PageIndex(PagedIndex):
    """The largest and the smallest value of every coordinate over the keys of a page bound the
    product of any query with any of them (Quest, arXiv 2406.10774, section 3.3):

        q . k <= sum_d max(q_d high_d, q_d low_d) = max(q, 0) . high + min(q, 0) . low

    So a search is a product of [max(q, 0), min(q, 0)] with [high, low], of twice the head size.
    """

    kind: ClassVar[str] = "longspan.pages"

    def __init__(self, page_tokens: int = 16, share: Sharing = "query_head") -> None:
        super().__init__(page_tokens)
        self.share = share

    def known(self, keys_GPTD: Tensor) -> Tensor:
        """[high, low]."""
        return torch.cat([keys_GPTD.amax(2), keys_GPTD.amin(2)], dim=-1)

    def asked(self, q_HD: Tensor) -> Tensor:
        """[max(q, 0), min(q, 0)]; so a score is what no key's exceeds, but for rounding."""
        return torch.cat([q_HD.clamp(min=0), q_HD.clamp(max=0)], dim=-1)

    def search(self, q_HD: Tensor, budget: Budget, scale: float) -> SearchResult:
        """The pages of the largest bounds, as many as hold `retrieve_tokens` and at least three,
        best first: a set a query head, or a KV head by the largest bound within its group.
        """
        wanted = min(max(LEAST_PAGES, self.wanted(budget)), self.pages)
        bound_NP = self.scores(q_HD, scale)
        if self.share == "kv_head":
            bound_NP = bound_NP.reshape(len(self._rows[0]), -1, self.pages).amax(1)
        runs = self.runs(bound_NP.topk(wanted, dim=-1).indices)
        return SearchResult(runs, None, distances=2.0 * self.pages, bytes=float(self.nbytes))

    @property
    def facts(self) -> Mapping[str, Any]:
        """See PagedIndex."""
        return {**super().facts, "share": self.share}
