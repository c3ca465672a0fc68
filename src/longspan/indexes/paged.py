"""Indexes of pages: stretches of consecutive tokens, each of which a vector stands for."""

from __future__ import annotations

from abc import abstractmethod
from copy import copy
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch

from longspan.indexes.base import KeyIndex, SearchResult
from longspan.indexes.files import read_facts, read_tensor, write_facts, write_tensors
from longspan.types import Runs
from longspan_kernels.wave_search import wave_search

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor

    from longspan.indexes.base import Budget, Segment

VERSION = "2"
TENSORS = "pages.safetensors"


class PagedIndex(KeyIndex):
    """A product of a vector of the query's with a vector of each page says what the page may hold.

    Stretches of the context are whole pages, in the order of their tokens.
    """

    kind: ClassVar[str]
    """What its files are called."""
    products: ClassVar[int] = 1
    """Of a query with keys, as long as what stands for a page."""
    least: ClassVar[int] = 1
    """Pages that are read, whatever the budget."""

    def __init__(self, page_tokens: int) -> None:
        self.page_tokens = page_tokens
        self.first_slot = 0
        self._rows: tuple[Tensor, ...] = ()  # [G, P, W] each, longer before shorter

    @abstractmethod
    def known(self, segment: Segment) -> Tensor:
        """What stands for the pages of a segment, which are whole [G, P, W]."""

    @abstractmethod
    def asked(self, q_HD: Tensor) -> Tensor:
        """What it is multiplied with [H, W]."""

    @abstractmethod
    def voted(self, score_BHP: Tensor, always_BGP: Tensor) -> Tensor:
        """Which pages to read, the largest votes first [B, N, P], a row for all heads that read the
        same. A score of -inf: there is no such page. `always`: see `always_GP`.
        """

    @property
    def always(self) -> int:
        """How many pages of a KV head are read beside what is asked for."""
        return 0

    @property
    def always_GP(self) -> Tensor:
        """bool: which ones."""
        rows_GPW = self._rows[0]
        return rows_GPW.new_zeros(len(rows_GPW), self.pages, dtype=torch.bool)

    def search(self, q_HD: Tensor, budget: Budget, scale: float) -> SearchResult:
        """The pages that are always read, then those of the largest votes, best first."""
        vote_BNP = self.voted(self.scores(q_HD, scale)[None], self.always_GP[None])
        runs = self.runs(vote_BNP[0].topk(self.wanted(budget), dim=-1).indices)
        return SearchResult(runs, None, distances=self.distances, bytes=float(self.nbytes))

    @property
    def wants_queries(self) -> bool:
        """Keys alone are indexed."""
        return False

    def build(self, segment: Segment) -> None:
        """Take in whole pages. Raises ValueError for a part of one, and on NaN or infinity."""
        keys_GTD, page = segment.keys_GTD, self.page_tokens
        if (tokens := keys_GTD.shape[1]) % page:
            raise ValueError(f"keys has {tokens} tokens; it should have whole pages of {page}")
        if self._rows and segment.first_slot != self.first_slot + self.tokens:
            raise ValueError(
                f"segment begins at slot {segment.first_slot}; it should begin at"
                f" {self.first_slot + self.tokens}, where the last one ended"
            )
        rows_GPW = self.known(segment)
        if rows_GPW.device.type == "cpu" and not bool(rows_GPW.isfinite().all()):
            raise ValueError("keys holds NaN or infinity; every value must be finite")
        if not self._rows:
            self.first_slot = segment.first_slot
        kept = list(self._rows)
        while kept and kept[-1].shape[1] <= rows_GPW.shape[1]:  # each is copied O(log P) times
            rows_GPW = torch.cat([kept.pop(), rows_GPW], dim=1)
        self._rows = (*kept, rows_GPW)

    def append(self, segment: Segment) -> None:
        """As `build`."""
        self.build(segment)

    def cut(self, tokens_GT: Tensor) -> Tensor:
        """Something of whole pages of tokens [G, T, ..], page by page [G, P, T, ..]."""
        return tokens_GT.reshape(len(tokens_GT), -1, self.page_tokens, *tokens_GT.shape[2:])

    def scores(self, q_HD: Tensor, scale: float) -> Tensor:
        """Of every page, float32 [H, P]."""
        asked_HW = self.asked(q_HD)
        found = [
            wave_search(
                asked_HW, each_GPW, _ones(each_GPW), retrieve=1, estimate=0, scale=scale
            ).score_HC
            for each_GPW in self._rows
        ]
        return torch.cat([each for each in found if each is not None], dim=-1)

    def wanted(self, budget: Budget) -> int:
        """How many pages a search gives. Raises ValueError for a budget beyond what there is."""
        if not 0 < budget.retrieve_tokens <= self.tokens:
            raise ValueError(
                f"retrieve_tokens is {budget.retrieve_tokens}; it should be 1 to {self.tokens},"
                " the keys indexed"
            )
        return min(self.most(budget), self.pages)

    def most(self, budget: Budget) -> int:
        """As `wanted`, were there pages enough."""
        return max(self.least, -(-budget.retrieve_tokens // self.page_tokens)) + self.always

    def runs(self, page_NK: Tensor) -> Runs:
        """The slots of these pages."""
        start_NK = page_NK.int() * self.page_tokens + self.first_slot
        count_N = torch.full_like(start_NK[:, 0], start_NK.shape[1])
        return Runs(start_NK, torch.full_like(start_NK, self.page_tokens), count_N)

    def rows_from(self, page: int) -> Tensor:
        """What stands for the pages from this one on [G, P, W]."""
        found, first = [], 0
        for each_GPW in self._rows:
            found.append(each_GPW[:, max(0, page - first) :])
            first += each_GPW.shape[1]
        return torch.cat(found, dim=1)

    def lie_in(self, rows_GPW: Tensor) -> None:
        """What stands for all pages lies here now."""
        self._rows = (rows_GPW,)

    def fork(self) -> Self:
        """Pages are never changed, so they are shared."""
        return copy(self)

    @property
    def pages(self) -> int:
        """How many there are."""
        return sum(each.shape[1] for each in self._rows)

    @property
    def tokens(self) -> int:
        """See KeyIndex."""
        return self.page_tokens * self.pages

    @property
    def distances(self) -> float:
        """Products a search makes for a query head."""
        return float(self.products * self.pages)

    @property
    def nbytes(self) -> int:
        """What stands for pages, in the dtype of the keys."""
        return sum(each.nbytes for each in self._rows)

    @property
    def facts(self) -> Mapping[str, Any]:
        """What the class is made with."""
        return {"page_tokens": self.page_tokens}

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        """By name, what is kept."""
        return {"pages": torch.cat(self._rows, dim=1)}

    def adopt(self, tensors: Mapping[str, Tensor]) -> None:
        """Hold what `tensors` of another held."""
        self._rows = (tensors["pages"],)

    def save(self, folder: Path) -> None:
        """Write what stands for the pages."""
        if not self._rows:
            raise ValueError("nothing is indexed; build a segment before saving")
        tensors = {name: tensor.cpu() for name, tensor in self.tensors.items()}
        write_tensors(folder / TENSORS, tensors)
        facts = {"made": dict(self.facts), "first_slot": self.first_slot, "holds": sorted(tensors)}
        write_facts(folder, self.kind, VERSION, facts)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """The index that `save` wrote, in host memory."""
        facts = read_facts(folder, cls.kind, VERSION)
        index = cls(**facts["made"])
        index.first_slot = facts["first_slot"]
        index.adopt({name: read_tensor(folder / TENSORS, name) for name in facts["holds"]})
        return index


def _ones(rows_GPW: Tensor) -> Tensor:
    """Pages all hold something."""
    return torch.ones(rows_GPW.shape[:2], dtype=torch.int32, device=rows_GPW.device)
