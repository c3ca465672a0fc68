"""Quest's index: pages of consecutive tokens, known by the ranges of their keys' coordinates."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from longspan.indexes.base import KeyIndex, SearchResult
from longspan.indexes.files import read_facts, read_tensor, write_facts, write_tensors
from longspan.types import Runs
from longspan_kernels.wave_search import wave_search

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from longspan.indexes.base import Budget, Segment
    from longspan_kernels.types import Sharing

KIND, VERSION = "longspan.pages", "1"
LEAST_PAGES = 3
"""Read whatever the budget."""
TENSORS = "bounds.safetensors"


class PageIndex(KeyIndex):
    """The largest and the smallest value of every coordinate over the keys of a page bound the
    product of any query with any of them (Quest, arXiv 2406.10774, section 3.3):

        q . k <= sum_d max(q_d high_d, q_d low_d) = max(q, 0) . high + min(q, 0) . low

    So a search is a product of [max(q, 0), min(q, 0)] with [high, low], of twice the head size.
    Stretches of the context are whole pages, in the order of their tokens.
    """

    def __init__(self, page_tokens: int = 16, share: Sharing = "query_head") -> None:
        self.page_tokens, self.share = page_tokens, share
        self._first_slot = 0
        self._bounds: tuple[Tensor, ...] = ()  # [G, P, 2D] each, longer before shorter

    @property
    def wants_queries(self) -> bool:
        """Keys alone are indexed."""
        return False

    def build(self, segment: Segment) -> None:
        """Take in whole pages. Raises ValueError for a part of one, and on NaN or infinity."""
        keys_GTD, page = segment.keys_GTD, self.page_tokens
        groups, tokens, width = keys_GTD.shape
        if tokens % page:
            raise ValueError(f"keys has {tokens} tokens; it should have whole pages of {page}")
        if self._bounds and segment.first_slot != self._first_slot + self.tokens:
            raise ValueError(
                f"segment begins at slot {segment.first_slot}; it should begin at"
                f" {self._first_slot + self.tokens}, where the last one ended"
            )
        keys_GPTD = keys_GTD.reshape(groups, tokens // page, page, width)
        bounds_GPW = torch.cat([keys_GPTD.amax(2), keys_GPTD.amin(2)], dim=-1)
        if bounds_GPW.device.type == "cpu" and not bool(bounds_GPW.isfinite().all()):
            raise ValueError("keys holds NaN or infinity; every value must be finite")
        if not self._bounds:
            self._first_slot = segment.first_slot
        kept = list(self._bounds)
        while kept and kept[-1].shape[1] <= bounds_GPW.shape[1]:  # each is copied O(log P) times
            bounds_GPW = torch.cat([kept.pop(), bounds_GPW], dim=1)
        self._bounds = (*kept, bounds_GPW)

    def append(self, segment: Segment) -> None:
        """As `build`."""
        self.build(segment)

    def search(self, q_HD: Tensor, budget: Budget, scale: float) -> SearchResult:
        """The pages of the largest bounds, as many as hold `retrieve_tokens` and at least three,
        best first: a set a query head, or a KV head by the largest bound within its group.
        """
        if not 0 < budget.retrieve_tokens <= self.tokens:
            raise ValueError(
                f"retrieve_tokens is {budget.retrieve_tokens}; it should be 1 to {self.tokens},"
                " the keys indexed"
            )
        bound_NP, pages = self.bounds(q_HD, scale), self.tokens // self.page_tokens
        if self.share == "kv_head":
            bound_NP = bound_NP.reshape(len(self._bounds[0]), -1, pages).amax(1)
        wanted = min(max(LEAST_PAGES, -(-budget.retrieve_tokens // self.page_tokens)), pages)
        page_NK = bound_NP.topk(wanted, dim=-1).indices.int()
        start_NK = page_NK * self.page_tokens + self._first_slot
        count_N = torch.full_like(start_NK[:, 0], wanted)
        runs = Runs(start_NK, torch.full_like(start_NK, self.page_tokens), count_N)
        return SearchResult(runs, None, distances=2.0 * pages, bytes=float(self.nbytes))

    def bounds(self, q_HD: Tensor, scale: float) -> Tensor:
        """float32 [H, P]: what no score of a page's keys exceeds, but for rounding."""
        split_HW = torch.cat([q_HD.clamp(min=0), q_HD.clamp(max=0)], dim=-1)
        found = [
            wave_search(
                split_HW, each_GPW, self._sizes(each_GPW), retrieve=1, estimate=0, scale=scale
            ).score_HC
            for each_GPW in self._bounds
        ]
        return torch.cat([each for each in found if each is not None], dim=-1)

    def fork(self) -> PageIndex:
        """Bounds are never changed, so they are shared."""
        twin = PageIndex(self.page_tokens, self.share)
        twin._first_slot, twin._bounds = self._first_slot, self._bounds
        return twin

    @property
    def tokens(self) -> int:
        """See KeyIndex."""
        return self.page_tokens * sum(each.shape[1] for each in self._bounds)

    @property
    def nbytes(self) -> int:
        """Two vectors a page and KV head, in the dtype of the keys."""
        return sum(each.nbytes for each in self._bounds)

    def save(self, folder: Path) -> None:
        """Write the bounds."""
        if not self._bounds:
            raise ValueError("nothing is indexed; build a segment before saving")
        write_tensors(folder / TENSORS, {"bounds": torch.cat(self._bounds, dim=1).cpu()})
        facts = {"page_tokens": self.page_tokens, "share": self.share}
        write_facts(folder, KIND, VERSION, {**facts, "first_slot": self._first_slot})

    @classmethod
    def load(cls, folder: Path) -> PageIndex:
        """The index that `save` wrote, in host memory."""
        facts = read_facts(folder, KIND, VERSION)
        index = cls(facts["page_tokens"], facts["share"])
        index._first_slot = facts["first_slot"]
        index._bounds = (read_tensor(folder / TENSORS, "bounds"),)
        return index

    def _sizes(self, bounds_GPW: Tensor) -> Tensor:
        shape = bounds_GPW.shape[:2]
        return torch.ones(shape, dtype=torch.int32, device=bounds_GPW.device)
