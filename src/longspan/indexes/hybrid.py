"""An index of tokens and clusters together: the best tokens are read, the rest is summarised.

Beyond the papers. What is found for the query heads of a group is read by all of them. A
cluster stands for those of its members that are not read: it weighs ln(members - read) instead of
ln(members), with the mean key and value of them all, so that no token counts twice; a cluster read
in full does not count. (The means still contain what was read: the index holds no keys or values.)
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from longspan.indexes.attention_graph import AttentionGraphIndex
from longspan.indexes.base import KeyIndex, SearchResult
from longspan.indexes.files import read_facts, read_tensor, write_facts, write_tensors
from longspan.indexes.key_codes import KeyCodesIndex
from longspan.indexes.wave import WaveIndex
from longspan.types import Estimate, Runs
from longspan_kernels.token_union import token_union
from longspan_kernels.wave_search import wave_search

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from longspan.indexes.base import Budget, Segment

KIND, VERSION, PLACES = "longspan.hybrid", "3", "places.safetensors"
Finder = AttentionGraphIndex | KeyCodesIndex
FINDERS: dict[str, type[Finder]] = {"graph": AttentionGraphIndex, "scan": KeyCodesIndex}
"""What finds tokens, by the names that files know."""


class HybridIndex(KeyIndex):
    """What finds tokens, one set a query head, and a wave index over the same tokens, in the order
    of the clusters. The finder reads no keys: they are not where it saw them.
    """

    def __init__(self, finder: Finder, wave: WaveIndex) -> None:
        if isinstance(finder, KeyCodesIndex) and finder.options.candidates > 1:
            raise ValueError(
                f"candidates is {finder.options.candidates}; it should be 1, as a finder reads no"
                " keys"
            )
        self.finder, self.wave = finder, wave
        self._place_GT: Tensor | None = None
        """int32: where, in the order of the clusters, the finder's tokens are."""
        self._first_slot = 0

    @property
    def wants_queries(self) -> bool:
        """See KeyIndex."""
        return self.finder.wants_queries

    @property
    def learns(self) -> bool:
        """See KeyIndex."""
        return self.finder.learns

    def build(self, segment: Segment) -> Tensor:
        """Both indexes take the stretch in; the order is that of the clusters."""
        self.finder.build(segment)
        return self._order(segment, self.wave.build(segment))

    def append(self, segment: Segment) -> Tensor:
        """As `build`."""
        self.finder.append(segment)
        return self._order(segment, self.wave.append(segment))

    def search(self, q_HD: Tensor, budget: Budget, scale: float) -> SearchResult:
        """`retrieve_tokens` are found per query head; `estimate_tokens` may be summarised."""
        found = self.finder.search(q_HD, budget, scale)
        assert self._place_GT is not None
        start_HK, count_H = found.retrieved.start_NK, found.retrieved.count_N
        read = token_union(
            start_HK - self._first_slot, count_H, self._place_GT, self.wave.meta.size_GC
        )
        estimate, products = self._estimate(q_HD, read.left_GC, budget, scale)
        row_bytes = 2 * self.wave.meta.centroids_GCD[0, 0].nbytes
        summaries = 0 if estimate is None else int(estimate.ids.count_N.sum())
        return replace(
            found,
            retrieved=Runs(read.place_GK + self._first_slot, None, read.count_G),
            estimated=estimate,
            distances=found.distances + products,
            bytes=found.bytes + summaries * row_bytes,
        )

    def remember(self, q_HD: Tensor) -> None:
        """See KeyIndex."""
        self.finder.remember(q_HD)

    def fork(self) -> HybridIndex:
        """See KeyIndex."""
        twin = HybridIndex(self.finder.fork(), self.wave.fork())
        twin._place_GT, twin._first_slot = self._place_GT, self._first_slot
        return twin

    @property
    def tokens(self) -> int:
        """See KeyIndex."""
        return self.wave.tokens

    @property
    def nbytes(self) -> int:
        """See KeyIndex."""
        places = 0 if self._place_GT is None else self._place_GT.nbytes
        return self.finder.nbytes + self.wave.nbytes + places

    def save(self, folder: Path) -> None:
        """Write both indexes; a token's place follows from the order of the clusters' tokens."""
        if self._place_GT is None:
            raise ValueError("nothing is indexed; build a segment before saving")
        (name,) = (name for name, kind in FINDERS.items() if isinstance(self.finder, kind))
        self.finder.save(folder / name)
        self.wave.save(folder / "clusters")
        write_tensors(folder / PLACES, {"place_GT": self._place_GT})
        write_facts(folder, KIND, VERSION, {"first_slot": self._first_slot, "finder": name})

    @classmethod
    def load(cls, folder: Path) -> HybridIndex:
        """The index that `save` wrote. Raises ValueError naming a file that is not one."""
        facts = read_facts(folder, KIND, VERSION)
        name = facts["finder"]
        index = cls(FINDERS[name].load(folder / name), WaveIndex.load(folder / "clusters"))
        index._place_GT = read_tensor(folder / PLACES, "place_GT")
        index._first_slot = facts["first_slot"]
        if index.finder.tokens != index.tokens or index._place_GT.shape[1] != index.tokens:
            raise ValueError(
                f"{folder} holds {index.finder.tokens} tokens in its {name},"
                f" {index.tokens} in clusters and {index._place_GT.shape[1]} places; they should"
                " be the same"
            )
        return index

    def _order(self, segment: Segment, order_GT: Tensor) -> Tensor:
        before = 0 if self._place_GT is None else self._place_GT.shape[1]
        if self._place_GT is None:
            self._first_slot = segment.first_slot
        place_GT = order_GT.argsort(dim=1).int() + before
        old_GT = place_GT[:, :0] if self._place_GT is None else self._place_GT
        self._place_GT = torch.cat([old_GT, place_GT], dim=1)
        return order_GT

    def _estimate(
        self, q_HD: Tensor, left_GC: Tensor, budget: Budget, scale: float
    ) -> tuple[Estimate | None, float]:
        """The clusters that stand for what is not read, and the products it took to rank them."""
        meta, clusters = self.wave.meta, left_GC.shape[1]
        wanted = min(round(budget.estimate_tokens / self.tokens * clusters), clusters)
        if not wanted:
            return None, 0.0
        open_GC = left_GC > 0
        if wanted < clusters:
            hits = wave_search(
                q_HD,
                meta.centroids_GCD,
                left_GC,
                retrieve=0,
                estimate=wanted,
                scale=scale,
                softcap=self.wave.options.softcap,
                want_scores=False,
            )
            ids_GE, products = hits.estimate_GK, float(clusters)
            open_GE = open_GC.gather(1, ids_GE.long().clamp(0, clusters - 1))
            open_GE &= torch.arange(wanted, device=ids_GE.device) < hits.live_G[:, None]
        else:
            ids_GE = torch.arange(clusters, device=left_GC.device, dtype=torch.int32)
            ids_GE, open_GE, products = ids_GE.expand_as(left_GC), open_GC, 0.0
        first_GE = (~open_GE).int().argsort(dim=1, stable=True)
        return (
            Estimate(
                keys_GCD=meta.centroids_GCD,
                values_GCD=meta.values_GCD,
                bias_GC=left_GC.clamp(min=1).float().log(),
                ids=Runs(ids_GE.gather(1, first_GE), None, open_GE.sum(1, dtype=torch.int32)),
                tokens_GC=left_GC,
            ),
            products,
        )
