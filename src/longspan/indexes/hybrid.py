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
        self.place_GT: Tensor | None = None
        """int32: where, in the order of the clusters, the finder's tokens are."""
        self.first_slot = 0

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
        assert self.place_GT is not None
        start_HK, count_H = found.retrieved.start_NK, found.retrieved.count_N
        read = token_union(
            start_HK - self.first_slot, count_H, self.place_GT, self.wave.meta.size_GC
        )
        estimate, products = self._estimate(q_HD, read.left_GC, budget, scale)
        summaries = 0 if estimate is None else int(estimate.ids.count_N.sum())
        return replace(
            found,
            retrieved=Runs(read.place_GK + self.first_slot, None, read.count_G),
            estimated=estimate,
            distances=found.distances + products,
            bytes=found.bytes + summaries * self.summary_bytes,
        )

    def remember(self, q_HD: Tensor) -> None:
        """See KeyIndex."""
        self.finder.remember(q_HD)

    def fork(self) -> HybridIndex:
        """See KeyIndex."""
        twin = HybridIndex(self.finder.fork(), self.wave.fork())
        twin.place_GT, twin.first_slot = self.place_GT, self.first_slot
        return twin

    @property
    def tokens(self) -> int:
        """See KeyIndex."""
        return self.wave.tokens

    @property
    def nbytes(self) -> int:
        """See KeyIndex."""
        places = 0 if self.place_GT is None else self.place_GT.nbytes
        return self.finder.nbytes + self.wave.nbytes + places

    def save(self, folder: Path) -> None:
        """Write both indexes; a token's place follows from the order of the clusters' tokens."""
        if self.place_GT is None:
            raise ValueError("nothing is indexed; build a segment before saving")
        (name,) = (name for name, kind in FINDERS.items() if isinstance(self.finder, kind))
        self.finder.save(folder / name)
        self.wave.save(folder / "clusters")
        write_tensors(folder / PLACES, {"place_GT": self.place_GT})
        write_facts(folder, KIND, VERSION, {"first_slot": self.first_slot, "finder": name})

    @classmethod
    def load(cls, folder: Path) -> HybridIndex:
        """The index that `save` wrote. Raises ValueError naming a file that is not one."""
        facts = read_facts(folder, KIND, VERSION)
        name = facts["finder"]
        index = cls(FINDERS[name].load(folder / name), WaveIndex.load(folder / "clusters"))
        index.place_GT = read_tensor(folder / PLACES, "place_GT")
        index.first_slot = facts["first_slot"]
        if index.finder.tokens != index.tokens or index.place_GT.shape[1] != index.tokens:
            raise ValueError(
                f"{folder} holds {index.finder.tokens} tokens in its {name},"
                f" {index.tokens} in clusters and {index.place_GT.shape[1]} places; they should"
                " be the same"
            )
        return index

    def _order(self, segment: Segment, order_GT: Tensor) -> Tensor:
        before = 0 if self.place_GT is None else self.place_GT.shape[1]
        if self.place_GT is None:
            self.first_slot = segment.first_slot
        place_GT = order_GT.argsort(dim=1).int() + before
        old_GT = place_GT[:, :0] if self.place_GT is None else self.place_GT
        self.place_GT = torch.cat([old_GT, place_GT], dim=1)
        return order_GT

    def _estimate(
        self, q_HD: Tensor, left_GC: Tensor, budget: Budget, scale: float
    ) -> tuple[Estimate | None, float]:
        """The clusters that stand for what is not read, and the products it took to rank them."""
        wanted = self.wanted(budget)
        if not wanted:
            return None, 0.0
        meta, softcap = self.wave.meta, self.wave.options.softcap
        means = meta.centroids_GCD, meta.values_GCD
        estimate = standing(q_HD, *means, left_GC, wanted, scale=scale, softcap=softcap)
        return estimate, self.ranking(wanted)

    @property
    def summary_bytes(self) -> int:
        """Of what stands for a cluster."""
        return 2 * self.wave.meta.centroids_GCD[0, 0].nbytes

    def wanted(self, budget: Budget) -> int:
        """Clusters that may stand for what is not read."""
        clusters = self.wave.clusters
        return min(round(budget.estimate_tokens / self.tokens * clusters), clusters)

    def ranking(self, wanted: int) -> float:
        """Products with centroids that it takes to find so many clusters."""
        return float(self.wave.clusters) if 0 < wanted < self.wave.clusters else 0.0


def standing(
    q_HD: Tensor,
    centroids_GCD: Tensor,
    values_GCD: Tensor,
    left_GC: Tensor,
    wanted: int,
    *,
    scale: float,
    softcap: float | None,
    most_2G: Tensor | None = None,
) -> Estimate:
    """The `wanted` best clusters of those that have left_GC tokens to stand for, or all of them;
    of each KV head no more than most_2G[1], where that is given. Waits for nothing.
    """
    clusters, device = left_GC.shape[1], left_GC.device
    open_GE = left_GC > 0
    ids_GE = torch.arange(clusters, device=device, dtype=torch.int32).expand_as(left_GC)
    if wanted < clusters or most_2G is not None:
        hits = wave_search(
            q_HD,
            centroids_GCD,
            left_GC,
            retrieve=0,
            estimate=wanted,
            scale=scale,
            softcap=softcap,
            want_scores=False,
            most_2G=most_2G,
        )
        live_G = hits.live_G if hits.count_2G is None else hits.count_2G[1]
        ids_GE = hits.estimate_GK
        open_GE = open_GE.gather(1, ids_GE.long().clamp(0, clusters - 1))
        open_GE &= torch.arange(wanted, device=device) < live_G[:, None]
    first_GE = (~open_GE).int().argsort(dim=1, stable=True)
    return Estimate(
        keys_GCD=centroids_GCD,
        values_GCD=values_GCD,
        bias_GC=left_GC.clamp(min=1).float().log(),
        ids=Runs(ids_GE.gather(1, first_GE), None, open_GE.sum(1, dtype=torch.int32)),
        tokens_GC=left_GC,
    )
