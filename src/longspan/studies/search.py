"""How much of the keys an index must score to find the best of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from longspan.indexes.attention_graph import AttentionGraphIndex, WalkOptions
from longspan.indexes.base import Budget, KeyIndex, Segment
from longspan.indexes.faiss_hnsw import FaissHnswIndex
from longspan.indexes.faiss_ivf import FaissIvfIndex
from longspan.indexes.flat import FlatIndex
from longspan.indexes.wave import WaveIndex
from longspan.methods.retroinfer import RetroInfer
from longspan_kernels.attention_graph import GraphOptions
from longspan_kernels.sparse_decode.reference import run_mask

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor

SHARES = (0.005, 0.01, 0.018, 0.03, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)
BEAMS = (100, 128, 192, 256, 384, 512, 768, 1024, 2048, 4096)


@dataclass(frozen=True)
class Contender:
    """An index, and what can be asked of it."""

    name: str
    make: Callable[[], KeyIndex]
    budgets: Callable[[int, int], Sequence[Budget]]
    """For so many keys and so many of the best, from the least effort to the most."""


def contenders() -> dict[str, Contender]:
    """Every index, by name; those of FAISS raise ValueError where it is missing."""
    graph = WalkOptions(seeds=0)  # every query begins anew
    found = (
        Contender("flat", FlatIndex, lambda _, top: [Budget(top)]),
        Contender("IVF", FaissIvfIndex, _lists),
        Contender("HNSW", FaissHnswIndex, _beams),
        Contender("wave", lambda: WaveIndex(RetroInfer(min_clusters=1).clusters(None)), _clusters),
        Contender("attention graph", lambda: AttentionGraphIndex(GraphOptions(), graph), _beams),
    )
    return {each.name: each for each in found}


@dataclass(frozen=True)
class Built:
    """An index over keys, which lie as it wants them."""

    index: KeyIndex
    keys_GTD: Tensor

    @classmethod
    def of(cls, index: KeyIndex, keys_GTD: Tensor, queries_HSD: Tensor | None) -> Built:
        """Build it; `queries_HSD` are for those that learn from them."""
        wanted = queries_HSD if index.wants_queries else None
        order_GT = index.build(Segment(keys_GTD, keys_GTD, 0, wanted))
        if order_GT is not None:
            wide_GTD = order_GT[..., None].expand_as(keys_GTD)
            keys_GTD = keys_GTD.gather(1, wide_GTD)
        return cls(index, keys_GTD)

    def best_HK(self, q_HD: Tensor, top: int) -> Tensor:
        """The slots of the exact best."""
        q_GRD = q_HD.float().reshape(len(self.keys_GTD), -1, q_HD.shape[1])
        score_HT = (q_GRD @ self.keys_GTD.float().mT).flatten(0, 1)
        return score_HT.topk(top).indices

    def search(self, queries_NHD: Tensor, budget: Budget, top: int) -> dict[str, float]:
        """Means over queries and heads: `recall` of the best `top`, and the share of the keys that
        was `scanned`: scored in the search, or, by an index that retrieves more than it scored,
        after it.
        """
        tokens = self.keys_GTD.shape[1]
        found, scored = 0.0, 0.0
        for q_HD in queries_NHD:
            hits = self.index.search(q_HD, budget, q_HD.shape[1] ** -0.5)
            mask_NT = run_mask(hits.retrieved, tokens)
            mask_HT = mask_NT.repeat_interleave(len(q_HD) // len(mask_NT), dim=0)
            found += float(mask_HT.gather(1, self.best_HK(q_HD, top)).float().mean())
            clusters = hits.retrieved.size_NK is not None
            scored += hits.distances + (float(mask_HT.sum(1).float().mean()) if clusters else 0.0)
        count = len(queries_NHD)
        return {"recall": found / count, "scanned": min(scored / count / tokens, 1.0)}

    def curve(
        self, contender: Contender, queries_NHD: Tensor, top: int, enough: float = 1.0
    ) -> list[dict[str, Any]]:
        """A row a budget, until the recall is `enough`."""
        rows = []
        for effort, budget in enumerate(contender.budgets(self.keys_GTD.shape[1], top)):
            rows.append({"effort": effort, **self.search(queries_NHD, budget, top)})
            if rows[-1]["recall"] >= enough:
                break
        return rows


def least(curve: Sequence[Mapping[str, Any]], recall: float = 0.95) -> float | None:
    """The least share scanned at which a curve reaches the recall; None where it never does."""
    reached = [float(row["scanned"]) for row in curve if row["recall"] >= recall]
    return min(reached, default=None)


def _beams(tokens: int, top: int) -> list[Budget]:
    efforts = [effort for effort in BEAMS if top <= effort < tokens]
    return [Budget(top, effort=effort) for effort in efforts or [top]]


def _lists(tokens: int, top: int) -> list[Budget]:
    lists = round(tokens**0.5)
    probes = sorted({max(1, round(share * lists)) for share in SHARES})
    return [Budget(top, effort=probed) for probed in probes]


def _clusters(tokens: int, top: int) -> list[Budget]:
    return [Budget(max(1, round(share * tokens))) for share in SHARES]
