"""InfLLM's index: blocks of consecutive tokens, known by those that were attended most."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from longspan.indexes.paged import PagedIndex

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from longspan.indexes.base import Segment


class RepresentativeIndex(PagedIndex):
    """The mean key of those `representatives` of a block's tokens that received most attention, KV
    head by KV head, speaks for it. Blocks are chosen once for all heads of the layer, by the
    product of all queries with them (InfLLM, arXiv 2402.04617, section 3).
    """

    kind: ClassVar[str] = "longspan.representatives"

    def __init__(self, page_tokens: int = 128, representatives: int = 4) -> None:
        """Raises ValueError where a block has fewer tokens than representatives."""
        super().__init__(page_tokens)
        if representatives > page_tokens:
            raise ValueError(
                f"representatives is {representatives} with page_tokens={page_tokens}; it should"
                " be at most as many"
            )
        self.representatives = representatives

    def known(self, segment: Segment) -> Tensor:
        """Means of representatives. Raises ValueError where it is not told what was received."""
        if segment.received_GT is None:
            raise ValueError("received is None; it should be what each of the keys received")
        keys_GPTD = self.cut(segment.keys_GTD)
        best_GPS = self.cut(segment.received_GT).topk(self.representatives, dim=-1).indices
        best_GPSD = best_GPS[..., None].expand(-1, -1, -1, keys_GPTD.shape[-1])
        return keys_GPTD.gather(2, best_GPSD).float().mean(2).to(keys_GPTD.dtype)

    def asked(self, q_HD: Tensor) -> Tensor:
        """The query itself."""
        return q_HD

    def voted(self, score_BHP: Tensor, always_BGP: Tensor) -> Tensor:
        """Sums of products over all heads; the same for every KV head."""
        return score_BHP.sum(1, keepdim=True).expand_as(always_BGP)

    @property
    def facts(self) -> Mapping[str, Any]:
        """See PagedIndex."""
        return {**super().facts, "representatives": self.representatives}
