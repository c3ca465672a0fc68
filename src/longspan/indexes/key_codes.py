"""Short codes of all keys, scanned at every step: a search without a graph or clusters.

Loki (Singhania et al., arXiv 2406.02542) ranks tokens by the first principal axes of their keys,
InfiniGen (Lee et al., arXiv 2406.19707) by columns of keys turned so that few carry the scores.
Beyond the papers: axes that keep the scores of the prompt's queries best, codes of a byte a column,
and the best candidates ordered by the keys themselves.
"""

from __future__ import annotations

from copy import copy
from dataclasses import asdict, dataclass
from math import ceil
from typing import TYPE_CHECKING

import torch

from longspan.indexes.base import KeyIndex, SearchResult
from longspan.indexes.files import read_facts, read_tensor, write_facts, write_tensors
from longspan.types import Runs
from longspan_kernels.key_scan import (
    Coordinates,
    KeyCodes,
    best_keys,
    coordinates,
    encode,
    scores,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from torch import Tensor

    from longspan.indexes.base import Budget, Segment
    from longspan_kernels.key_scan import Axes

KIND, VERSION, CODES = "longspan.key_codes", "1", "codes.safetensors"


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeOptions:
    """What is scanned, and how it is used."""

    rank: float = 1.0
    """Axes of a code, as a share of the head size."""
    metric: Axes = "queries"
    """Axes keep the scores of the prompt's `queries` best, or the `keys` (Loki), or are those
    that weigh most when queries have been `skewed` (InfiniGen).
    """
    candidates: float = 1.0
    """So many times what is retrieved is ordered by the keys themselves; 1: codes decide. Keys that
    are not where the codes are, as in a wave buffer, are not read: their codes decide.
    """

    def kept(self, head_size: int) -> int:
        """Axes of a code, but for those that fill it up."""
        return max(1, ceil(self.rank * head_size))

    def ordered(self, wanted: int, tokens: int) -> int:
        """Of how many of the keys the products are taken; 0: codes decide."""
        return ceil(min(self.candidates * wanted, tokens)) if self.candidates > 1 else 0


class KeyCodesIndex(KeyIndex):
    """Codes of one layer of one sequence; the best tokens of each query head. Stretches are
    immutable; all have the first one's coordinates, and steps of their own.
    """

    def __init__(self, options: CodeOptions) -> None:
        self.options = options
        self.where: Coordinates | None = None
        self.coded: tuple[KeyCodes, ...] = ()
        """By stretches."""
        self._keys_GTDs: tuple[Tensor, ...] = ()
        self.first_slot = 0

    @property
    def wants_queries(self) -> bool:
        """The axes are chosen by what queries tell apart."""
        return self.options.metric != "keys"

    def build(self, segment: Segment) -> None:
        """Write a stretch of the prompt in codes. Raises ValueError on NaN or infinity."""
        keys_GTD, where = segment.keys_GTD, self.where
        if where is None:
            queries_GSD = None
            if segment.queries_HSD is not None:
                queries_GSD = segment.queries_HSD.reshape(len(keys_GTD), -1, keys_GTD.shape[2])
            rank = self.options.kept(keys_GTD.shape[2])
            where = coordinates(keys_GTD, queries_GSD, rank, self.options.metric)
        elif segment.first_slot != self.first_slot + self.tokens:
            raise ValueError(
                f"segment begins at slot {segment.first_slot}; it should begin at"
                f" {self.first_slot + self.tokens}, where the last one ended"
            )
        coded = encode(keys_GTD, where)
        if self.where is None:
            self.where, self.first_slot = where, segment.first_slot
        if self.options.candidates > 1 and (self._keys_GTDs or not self.coded):
            self._keys_GTDs = (*self._keys_GTDs, keys_GTD)
        self.coded = (*self.coded, coded)

    def append(self, segment: Segment) -> None:
        """As `build`."""
        self.build(segment)

    def search(self, q_HD: Tensor, budget: Budget, scale: float) -> SearchResult:
        """The `retrieve_tokens` slots of largest score, per query head."""
        wanted = budget.retrieve_tokens
        if self.where is None or not 0 < wanted <= self.tokens:
            raise ValueError(
                f"retrieve_tokens is {wanted}; it should be 1 to {self.tokens}, the keys indexed"
            )
        here = all(keys_GTD.device == q_HD.device for keys_GTD in self._keys_GTDs)
        keys_GTDs = self._keys_GTDs if here else ()
        ordered = self.options.ordered(wanted, self.tokens) if keys_GTDs else 0
        ids_HK = best_keys(
            q_HD, self.coded, self.where, wanted, keys_GTDs=keys_GTDs, candidates=ordered or wanted
        )
        distances, read = self.cost(len(q_HD), ordered)
        return SearchResult(
            retrieved=Runs(ids_HK + self.first_slot, None, torch.full_like(ids_HK[:, 0], wanted)),
            estimated=None,
            distances=distances,
            bytes=read,
        )

    def near_best(self, q_HD: Tensor, below: float, beside_GTDs: Sequence[Tensor] = ()) -> float:
        """How many keys have a product with the query at most `below` the best one's, by codes: a
        mean over the query heads. The best may be one of the keys beside, which do not count. In
        plain torch; on a GPU it is waited for.
        """
        assert self.where is not None
        score_HT = scores(q_HD, self.coded, self.where)
        best_H = score_HT.amax(1)
        y_GRW = q_HD.float().view(len(self.where.mean_GD), -1, q_HD.shape[1])
        y_GRW = y_GRW @ self.where.to_queries_GDW
        for keys_GTD in beside_GTDs:
            x_GTW = (keys_GTD.float() - self.where.mean_GD[:, None]) @ self.where.to_codes_GDW
            best_H = best_H.maximum((y_GRW @ x_GTW.mT).amax(2).flatten())
        return float((score_HT >= best_H[:, None] - below).sum(1).float().mean())

    def cost(self, heads: int, ordered: int) -> tuple[float, float]:
        """Distances of a search for so many query heads that takes the products of so many keys
        each, and the bytes that it reads.
        """
        codes = sum(each.code_GTW.nbytes for each in self.coded)
        keys = ordered * heads * self._keys_GTDs[0][0, 0].nbytes if ordered else 0
        return float(self.tokens + ordered), float(codes + keys)

    def lie_in(self, coded: Sequence[KeyCodes]) -> None:
        """The same codes lie here now."""
        self.coded = tuple(coded)

    def keys_at(self, keys_GTDs: Sequence[Tensor]) -> None:
        """See KeyIndex; what was read of before may go."""
        if self._keys_GTDs:
            self._keys_GTDs = tuple(keys_GTDs)

    def fork(self) -> KeyCodesIndex:
        """Codes are never changed, so they are shared."""
        return copy(self)

    @property
    def tokens(self) -> int:
        """See KeyIndex."""
        return sum(each.code_GTW.shape[1] for each in self.coded)

    @property
    def nbytes(self) -> int:
        """See KeyIndex."""
        held = [tensor for each in self.coded for tensor in each]
        return sum(tensor.nbytes for tensor in (*held, *(self.where or ())))

    def save(self, folder: Path) -> None:
        """Write codes and coordinates; the keys are the store's."""
        if self.where is None:
            raise ValueError("nothing is indexed; build a segment before saving")
        tensors = self.where._asdict()
        for number, each in enumerate(self.coded):
            tensors |= {f"{name}.{number}": part for name, part in each._asdict().items()}
        write_tensors(folder / CODES, tensors)
        facts = {
            "options": asdict(self.options),
            "first_slot": self.first_slot,
            "tokens": self.tokens,
            "stretches": len(self.coded),
        }
        write_facts(folder, KIND, VERSION, facts)

    @classmethod
    def load(cls, folder: Path, keys_GTD: Tensor | None = None) -> KeyCodesIndex:
        """The index that `save` wrote; with the keys [G, T, D] it covers, searches are exact in
        their order where the options say so. Raises ValueError naming a file that is not one.
        """
        facts, path = read_facts(folder, KIND, VERSION), folder / CODES
        try:
            index = cls(CodeOptions(**facts["options"]))
            stretches, tokens = int(facts["stretches"]), int(facts["tokens"])
            index.first_slot = int(facts["first_slot"])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{folder} holds key codes of other settings ({error}): build the index again"
            ) from error
        index.where = Coordinates(*(read_tensor(path, name) for name in Coordinates._fields))
        index.coded = tuple(
            KeyCodes(*(read_tensor(path, f"{name}.{number}") for name in KeyCodes._fields))
            for number in range(stretches)
        )
        if not index.tokens == tokens > 0:
            raise ValueError(f"{path} holds {index.tokens} tokens; it should hold {tokens}")
        if keys_GTD is not None:
            groups, size = index.where.mean_GD.shape
            if tuple(keys_GTD.shape) != (groups, tokens, size):
                raise ValueError(
                    f"keys has shape {list(keys_GTD.shape)}; it should be {[groups, tokens, size]}"
                )
            index._keys_GTDs = (keys_GTD,) if index.options.candidates > 1 else ()
        return index
