"""Codes in place of keys: every token is scored by a few look-ups, the best are retrieved."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from longspan.indexes.base import KeyIndex, SearchResult
from longspan.indexes.files import read_facts, read_tensor, write_facts, write_tensors
from longspan.types import Runs
from longspan_kernels.product_codes import best_tokens, encode, train
from longspan_kernels.types import Coded

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from torch import Tensor

    from longspan.indexes.base import Budget, Segment
    from longspan_kernels.types import Sharing

KIND, VERSION, CODES = "longspan.pq", "1", "codes.safetensors"


MOST_BITS = 8
"""A code is a byte."""


def check_parts(parts: int, head_size: int) -> None:
    """ValueError where a head cannot be cut into so many equal parts."""
    if parts < 1 or head_size % parts:
        raise ValueError(f"method.parts is {parts}; it should divide the head size, {head_size}")


class PQIndex(KeyIndex):
    """Product quantisation of the keys of each KV head, a codebook each. Stretches are immutable.

    parts, bits: a key is cut into so many parts, each written in a byte that names one of 2**bits
    centroids. rounds: of k-means. share: the query heads of a KV head retrieve the same tokens,
    those of the largest softmax weights summed over them, or each `query_head` its own.

    A codebook is trained on the first stretch, and on a stretch of the prompt that is longer than
    all that is indexed; any other is written with the last codebook.
    """

    def __init__(
        self, parts: int = 2, bits: int = 6, rounds: int = 10, share: Sharing = "kv_head"
    ) -> None:
        if not 1 <= bits <= MOST_BITS:
            raise ValueError(f"method.bits is {bits}; it should be 1 to {MOST_BITS}")
        self.parts, self.bits, self.rounds, self.share = parts, bits, rounds, share
        self._stretches: tuple[Coded, ...] = ()
        self.first_slot = 0

    @property
    def wants_queries(self) -> bool:
        """Keys alone are indexed."""
        return False

    def build(self, segment: Segment) -> None:
        """Write a stretch of the prompt in codes. Raises ValueError on NaN or infinity."""
        self._take(segment, anew=segment.keys_GTD.shape[1] > self.tokens)

    def append(self, segment: Segment) -> None:
        """As `build`, with the codebook that there is."""
        self._take(segment, anew=not self._stretches)

    def search(self, q_HD: Tensor, budget: Budget, scale: float) -> SearchResult:
        """The `retrieve_tokens` slots of largest approximate weight, per KV head or query head."""
        wanted = self.wanted(budget)
        slot_NK = self.first_slot + best_tokens(
            q_HD, self._stretches, wanted, scale=scale, share=self.share
        )
        return SearchResult(
            retrieved=Runs(slot_NK, None, torch.full_like(slot_NK[:, 0], wanted)),
            estimated=None,
            distances=self.distances,
            bytes=float(self.nbytes),
        )

    def wanted(self, budget: Budget) -> int:
        """How many tokens a search gives. Raises ValueError for a budget beyond what there is."""
        wanted = budget.retrieve_tokens
        if not 0 < wanted <= self.tokens:
            raise ValueError(
                f"retrieve_tokens is {wanted}; it should be 1 to {self.tokens}, the keys indexed"
            )
        return wanted

    def lie_in(self, stretches: Sequence[Coded]) -> None:
        """All codebooks and codes lie here now."""
        self._stretches = tuple(stretches)

    def fork(self) -> PQIndex:
        """Stretches are never changed, so they are shared."""
        twin = PQIndex(**self._options)
        twin._stretches, twin.first_slot = self._stretches, self.first_slot
        return twin

    @property
    def stretches(self) -> tuple[Coded, ...]:
        """A codebook each, in the order of their tokens."""
        return self._stretches

    @property
    def distances(self) -> float:
        """Products a search makes for a query head."""
        return float(sum(s.centroids_GPCE.shape[2] for s in self._stretches))

    @property
    def tokens(self) -> int:
        """See KeyIndex."""
        return sum(s.code_GPT.shape[2] for s in self._stretches)

    @property
    def nbytes(self) -> int:
        """See KeyIndex."""
        return sum(s.code_GPT.nbytes + s.centroids_GPCE.nbytes for s in self._stretches)

    def save(self, folder: Path) -> None:
        """Write codes and codebooks."""
        if not self._stretches:
            raise ValueError("nothing is indexed; build a segment before saving")
        tensors = {}
        for number, stretch in enumerate(self._stretches):
            tensors[f"centroids_{number}"] = stretch.centroids_GPCE
            tensors[f"codes_{number}"] = stretch.code_GPT
        write_tensors(folder / CODES, tensors)
        facts = {
            "options": self._options,
            "first_slot": self.first_slot,
            "tokens": self.tokens,
            "stretches": len(self._stretches),
        }
        write_facts(folder, KIND, VERSION, facts)

    @classmethod
    def load(cls, folder: Path) -> PQIndex:
        """The index that `save` wrote. Raises ValueError naming a file that is not one."""
        facts = read_facts(folder, KIND, VERSION)
        index = cls(**facts["options"])
        index.first_slot = facts["first_slot"]
        index._stretches = tuple(
            Coded(
                read_tensor(folder / CODES, f"centroids_{number}"),
                read_tensor(folder / CODES, f"codes_{number}"),
            )
            for number in range(facts["stretches"])
        )
        if index.tokens != facts["tokens"]:
            raise ValueError(
                f"{folder / CODES} holds {index.tokens} tokens; it should hold {facts['tokens']}"
            )
        return index

    @property
    def _options(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("parts", "bits", "rounds", "share")}

    def _take(self, segment: Segment, *, anew: bool) -> None:
        keys_GTD = segment.keys_GTD.detach()
        check_parts(self.parts, keys_GTD.shape[2])
        if self._stretches and segment.first_slot != self.first_slot + self.tokens:
            raise ValueError(
                f"segment begins at slot {segment.first_slot}; it should begin at"
                f" {self.first_slot + self.tokens}, where the last one ended"
            )
        if not bool(keys_GTD.isfinite().all()):
            raise ValueError("keys holds NaN or infinity; every value must be finite")
        if not self._stretches:
            self.first_slot = segment.first_slot
        if anew:
            centroids_GPCE = train(keys_GTD, self.parts, 2**self.bits, self.rounds)
            new = Coded(centroids_GPCE, encode(keys_GTD, centroids_GPCE))
            self._stretches = (*self._stretches, new)
        else:
            *before, last = self._stretches
            code_GPT = encode(keys_GTD, last.centroids_GPCE)
            more = last._replace(code_GPT=torch.cat([last.code_GPT, code_GPT], dim=2))
            self._stretches = (*before, more)
