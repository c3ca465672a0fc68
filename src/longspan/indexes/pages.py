"""Quest's index: pages of consecutive tokens, known by the ranges of their keys' coordinates."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch

from longspan.indexes.paged import PagedIndex

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from longspan.indexes.base import Segment
    from longspan_kernels.types import Sharing


class PageIndex(PagedIndex):
    """The largest and the smallest value of every coordinate over the keys of a page bound the
    product of any query with any of them (Quest, arXiv 2406.10774, section 3.3):

        q . k <= sum_d max(q_d high_d, q_d low_d) = max(q, 0) . high + min(q, 0) . low

    So a search is a product of [max(q, 0), min(q, 0)] with [high, low], of twice the head size.
    """

    kind: ClassVar[str] = "longspan.pages"
    products: ClassVar[int] = 2
    least: ClassVar[int] = 3

    def __init__(self, page_tokens: int = 16, share: Sharing = "query_head") -> None:
        super().__init__(page_tokens)
        self.share = share

    def known(self, segment: Segment) -> Tensor:
        """[high, low]."""
        keys_GPTD = self.cut(segment.keys_GTD)
        return torch.cat([keys_GPTD.amax(2), keys_GPTD.amin(2)], dim=-1)

    def asked(self, q_HD: Tensor) -> Tensor:
        """[max(q, 0), min(q, 0)]; so a score is what no key's exceeds, but for rounding."""
        return torch.cat([q_HD.clamp(min=0), q_HD.clamp(max=0)], dim=-1)

    def voted(self, score_BHP: Tensor, always_BGP: Tensor) -> Tensor:
        """The bounds: a set of pages a query head, or a KV head by the largest of its group."""
        if self.share == "query_head":
            return score_BHP
        batch, groups, pages = always_BGP.shape
        return score_BHP.reshape(batch, groups, -1, pages).amax(2)

    @property
    def facts(self) -> Mapping[str, Any]:
        """See PagedIndex."""
        return {**super().facts, "share": self.share}
