"""What an index over keys is: it sees keys, answers which stored tokens a query should read, and
holds neither K nor V.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from torch import Tensor

    from longspan.types import Estimate, Partial, Runs


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of tokens that enters an index: slots [first_slot, first_slot + T) of the store."""

    keys_GTD: Tensor
    values_GTD: Tensor
    first_slot: int
    queries_HSD: Tensor | None = None
    """Sampled prefill queries of the same layer, for indexes that learn from them."""
    received_GT: Tensor | None = None
    """float32: the attention that each token received, for indexes that rank tokens by it."""


@dataclass(frozen=True, slots=True)
class Budget:
    """How much a search may read, counted over the indexed tokens."""

    retrieve_tokens: int
    """Tokens wanted for exact attention, per KV head (or per query head where the index selects
    so).
    """
    estimate_tokens: int = 0
    """Tokens that may be represented by summaries, where the index has any."""
    effort: int | None = None
    """Breadth of the search in the index's own unit (beam width, lists probed); None: default."""
    exact_lse_H: Tensor | None = None
    """Log-sum-exp of what each query head attends exactly beside the index (the steady zone)."""


@dataclass(frozen=True, slots=True)
class SearchResult:
    """What to read, and what finding it cost."""

    retrieved: Runs
    estimated: Estimate | None
    distances: float
    """Products of a query head with a key or centroid, mean over query heads."""
    bytes: float | Tensor
    """Index bytes read, all heads together."""
    hops: float = 0.0
    """Nodes expanded or lists opened on the way, mean over query heads."""
    tail: Partial | None = None
    """Attention, by summaries, over whatever is neither retrieved nor estimated."""


class KeyIndex(ABC):
    """An index over the keys of one layer of one sequence, all KV heads; grows by segments."""

    @property
    @abstractmethod
    def wants_queries(self) -> bool:
        """Whether `build` needs sampled prefill queries."""

    @property
    def learns(self) -> bool:
        """Whether decode steps are learned from, so that `remember` counts."""
        return False

    @abstractmethod
    def build(self, segment: Segment) -> Tensor | None:
        """Take in a segment of the prompt.

        Returns None, or the order order_GT (int64) into which the caller must bring the segment's
        slots, per KV head,
        before the next search: slot first_slot + t must then hold what was at first_slot +
        order_GT[g, t].
        """

    @abstractmethod
    def append(self, segment: Segment) -> Tensor | None:
        """Take in generated tokens; like `build`, but cheap enough to be called between two decode
        steps.
        """

    def keys_at(self, keys_GTDs: Sequence[Tensor]) -> None:
        """These hold the keys of what is indexed from now on; for an index that reads keys."""
        del keys_GTDs

    def remember(self, q_HD: Tensor) -> None:
        """Learn of a query as `search` does, without an answer; where it `learns`."""
        raise TypeError(f"index {type(self).__name__} learns of no queries")

    @abstractmethod
    def search(self, q_HD: Tensor, budget: Budget, scale: float) -> SearchResult:
        """The slots that the query heads should read within the budget."""

    @abstractmethod
    def fork(self) -> KeyIndex:
        """A second index that grows on its own; what is built is shared."""

    @property
    @abstractmethod
    def tokens(self) -> int:
        """How many tokens are indexed."""

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """Memory of the index."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write the index; the class's `load` reads it. ValueError while nothing is indexed."""
