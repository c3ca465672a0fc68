"""The exact index: every key is scored, the best are retrieved."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from longspan.indexes.base import KeyIndex, SearchResult, Segment
from longspan.indexes.files import read_facts, write_facts
from longspan.types import Runs
from longspan_kernels.dense_decode.reference import scores

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from longspan.indexes.base import Budget

KIND, VERSION = "longspan.flat", "1"


class FlatIndex(KeyIndex):
    """Exact top-k inner products, one set a query head. Refers to the store's keys, copies none."""

    def __init__(self, segments: tuple[Segment, ...] = ()) -> None:
        self._segments = segments

    @property
    def wants_queries(self) -> bool:
        """Nothing is learned."""
        return False

    def build(self, segment: Segment) -> None:
        """Remember where the keys are."""
        if self._segments and segment.first_slot != self._stop:
            raise ValueError(
                f"segment begins at slot {segment.first_slot}; it should begin at {self._stop},"
                " where the last one ended"
            )
        self._segments = (*self._segments, segment)

    def append(self, segment: Segment) -> None:
        """As `build`."""
        self.build(segment)

    def search(self, q_HD: Tensor, budget: Budget, scale: float) -> SearchResult:
        """The `retrieve_tokens` slots of largest score, per query head."""
        wanted = budget.retrieve_tokens
        if not 0 < wanted <= self.tokens:
            raise ValueError(
                f"retrieve_tokens is {wanted}; it should be 1 to {self.tokens}, the keys indexed"
            )
        score_HT = torch.cat(
            [scores(q_HD, s.keys_GTD, scale, None).flatten(0, 1) for s in self._segments], dim=1
        )
        slot_HK = score_HT.topk(wanted, dim=-1).indices + self._segments[0].first_slot
        count_H = torch.full((q_HD.shape[0],), wanted, dtype=torch.int32, device=q_HD.device)
        return SearchResult(
            retrieved=Runs(slot_HK.int(), None, count_H),
            estimated=None,
            distances=float(self.tokens),
            bytes=float(sum(s.keys_GTD.nbytes for s in self._segments)),
        )

    def fork(self) -> FlatIndex:
        """Segments are never changed, so they are shared."""
        return FlatIndex(self._segments)

    @property
    def tokens(self) -> int:
        """See KeyIndex."""
        return sum(s.keys_GTD.shape[1] for s in self._segments)

    @property
    def nbytes(self) -> int:
        """Nothing beside the store's keys."""
        return 0

    def save(self, folder: Path) -> None:
        """Write which slots are indexed; the keys are the store's."""
        if not self._segments:
            raise ValueError("nothing is indexed; build a segment before saving")
        facts = {"first_slot": self._segments[0].first_slot, "tokens": self.tokens}
        write_facts(folder, KIND, VERSION, facts)

    @classmethod
    def load(cls, folder: Path, keys_GTD: Tensor) -> FlatIndex:
        """The index that `save` wrote, over the keys [G, T, D] it covers."""
        facts = read_facts(folder, KIND, VERSION)
        if keys_GTD.shape[1] != facts["tokens"]:
            raise ValueError(
                f"keys has {keys_GTD.shape[1]} tokens; it should have {facts['tokens']}"
            )
        return cls((Segment(keys_GTD, keys_GTD, facts["first_slot"]),))

    @property
    def _stop(self) -> int:
        last = self._segments[-1]
        return last.first_slot + last.keys_GTD.shape[1]
