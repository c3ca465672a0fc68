"""The attention graph as an index: keys linked to those that the same queries read.

RetrievalAttention (arXiv 2409.10516), section 3. Beyond the paper: one graph per KV head from the
pooled queries of its group, distances in the queries' own metric, generated tokens are inserted,
and each step begins where the last one ended.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

import torch

from longspan.indexes.attention_graph_files import read, write
from longspan.indexes.base import KeyIndex, SearchResult
from longspan.types import Runs
from longspan_kernels.attention_graph import AttentionGraph, GraphHits, GraphOptions, build, search

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from torch import Tensor

    from longspan.indexes.base import Budget, Segment

BRIDGES = 64
"""So many of the latest queries lead inserted keys to those that are read with them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WalkOptions:
    """How graphs are shared and searched."""

    graph_per: Literal["kv_head", "query_head"] = "kv_head"
    beam: int = 192
    """Candidates a search holds: more is more exact and slower; at least twice k are held."""
    seeds: int = 32
    """Tokens found by the last step that the next one begins with."""
    exact: bool = True
    """Order what was found by the keys themselves, which must stay where they are."""


class AttentionGraphIndex(KeyIndex):
    """Graphs of one layer of one sequence. Refers to the store's keys for the exact order of what
    it found, and copies none; where those are not in host memory, their codes decide.
    """

    def __init__(
        self, options: GraphOptions, walk: WalkOptions, device: torch.device | None = None
    ) -> None:
        """`device`: where builds find the queries' exact nearest keys."""
        self.options, self.walk, self._device = options, walk, device
        self._graphs: tuple[AttentionGraph, ...] = ()
        self._shared = False
        self._keys_GTDs: tuple[Tensor, ...] = ()
        self._first_slot = 0
        self._last_ids_HK: Tensor | None = None
        self._recent_HSD: list[Tensor] = []

    @property
    def wants_queries(self) -> bool:
        """The graph is made of what queries read."""
        return True

    @property
    def learns(self) -> bool:
        """A step begins where the last one ended, and inserted keys are led by the last ones."""
        return True

    def build(self, segment: Segment) -> None:
        """Build the graphs; a further segment of a prompt is inserted."""
        if self._graphs:
            self.append(segment)
            return
        keys_GTD, queries_GSD = segment.keys_GTD.cpu(), self._pooled(segment).cpu()
        rows_a_group = max(1, len(queries_GSD) // len(keys_GTD))
        self._graphs = tuple(
            build(keys_GTD[row // rows_a_group], queries_SD, self.options, device=self._device)
            for row, queries_SD in enumerate(queries_GSD)
        )
        self._first_slot = segment.first_slot
        self._keep(segment.keys_GTD)

    def append(self, segment: Segment) -> None:
        """Insert the keys, the queries of the last steps leading them."""
        if not self._graphs:
            self.build(segment)
            return
        if segment.first_slot != self._first_slot + self.tokens:
            raise ValueError(
                f"segment begins at slot {segment.first_slot}; it should begin at"
                f" {self._first_slot + self.tokens}, where the last one ended"
            )
        if self._shared:
            self._graphs = tuple(graph.copy() for graph in self._graphs)
            self._shared = False
        recent_HSD = torch.stack(self._recent_HSD, 1) if self._recent_HSD else None
        if segment.queries_HSD is not None:
            recent_HSD = segment.queries_HSD
        rows_a_group = len(self._graphs) // len(segment.keys_GTD)
        for row, graph in enumerate(self._graphs):
            bridges_SD = None
            if recent_HSD is not None:
                mine_HSD = recent_HSD.chunk(len(self._graphs))[row]
                bridges_SD = mine_HSD[:, -BRIDGES:].flatten(0, 1).cpu()
            graph.insert(segment.keys_GTD[row // rows_a_group].cpu(), bridges_SD)
        self._keep(segment.keys_GTD)

    def search(self, q_HD: Tensor, budget: Budget, scale: float) -> SearchResult:
        """The `retrieve_tokens` best slots the walk finds, per query head; `effort` is the beam."""
        wanted = budget.retrieve_tokens
        if not 0 < wanted <= self.tokens:
            raise ValueError(
                f"retrieve_tokens is {wanted}; it should be 1 to {self.tokens}, the keys indexed"
            )
        hits = self._walk(q_HD, wanted, budget.effort)
        self.remember(q_HD)
        if self.walk.seeds:
            self._last_ids_HK = hits.ids_HK[:, : self.walk.seeds].contiguous()
        count_H = (hits.ids_HK >= 0).sum(1, dtype=torch.int32)
        start_HK = (hits.ids_HK + self._first_slot).to(q_HD.device)
        edge_bytes = 4 * self.options.degree  # of a node whose neighbours are looked at
        code_bytes = self._graphs[0].nbytes / self.tokens - edge_bytes
        return SearchResult(
            retrieved=Runs(start_HK, None, count_H.to(q_HD.device)),
            estimated=None,
            distances=float(hits.distances_H.float().mean()),
            bytes=float(hits.distances_H.sum() * code_bytes + hits.hops_H.sum() * edge_bytes),
            hops=float(hits.hops_H.float().mean()),
        )

    def keys_at(self, keys_GTDs: Sequence[Tensor]) -> None:
        """See KeyIndex; what was read of before may go."""
        if self._keys_GTDs:
            self._keys_GTDs = tuple(keys_GTDs)

    def remember(self, q_HD: Tensor) -> None:
        """See KeyIndex; the next walk begins where it would without a last step."""
        self._recent_HSD = [*self._recent_HSD[1 - BRIDGES :], q_HD]
        self._last_ids_HK = None

    def fork(self) -> AttentionGraphIndex:
        """Graphs are shared until one of the two grows."""
        twin = AttentionGraphIndex(self.options, self.walk, self._device)
        self._shared = twin._shared = True
        twin._graphs, twin._keys_GTDs = self._graphs, self._keys_GTDs
        twin._first_slot, twin._last_ids_HK = self._first_slot, self._last_ids_HK
        twin._recent_HSD = list(self._recent_HSD)
        return twin

    @property
    def tokens(self) -> int:
        """See KeyIndex."""
        return self._graphs[0].tokens if self._graphs else 0

    @property
    def nbytes(self) -> int:
        """See KeyIndex."""
        return sum(graph.nbytes for graph in self._graphs)

    def save(self, folder: Path) -> None:
        """Write a file a graph and one about them all. What the last steps asked for is not kept:
        the next walk begins without them, and keys that are inserted next are led by no query.
        """
        if not self._graphs:
            raise ValueError("nothing is indexed; build a segment before saving")
        write(folder, self._graphs, self._first_slot, asdict(self.walk))

    @classmethod
    def load(cls, folder: Path, keys_GTD: Tensor | None = None) -> AttentionGraphIndex:
        """The index that `save` wrote; with the keys [G, T, D] it covers, searches are exact in
        their order. Raises ValueError naming a file that is not what it should be.
        """
        graphs, first_slot, walk = read(folder)
        index = cls(graphs[0].options, WalkOptions(**walk))
        index._graphs, index._first_slot = graphs, first_slot
        if keys_GTD is not None:
            if keys_GTD.shape[1] != index.tokens:
                raise ValueError(
                    f"keys has {keys_GTD.shape[1]} tokens; it should have {index.tokens}"
                )
            index._keys_GTDs = (keys_GTD,)
        return index

    def _keep(self, keys_GTD: Tensor) -> None:
        before = sum(each.shape[1] for each in self._keys_GTDs)
        whole = before + keys_GTD.shape[1] == self.tokens  # not where an index was loaded without
        if self.walk.exact and whole and keys_GTD.device.type == "cpu":
            self._keys_GTDs = (*self._keys_GTDs, keys_GTD)

    def _pooled(self, segment: Segment) -> Tensor:
        """[rows, S, D]: the sampled queries a graph each, those of a group together or not."""
        groups, _, size = segment.keys_GTD.shape
        if segment.queries_HSD is None:
            return segment.keys_GTD.new_empty(groups, 0, size)
        if self.walk.graph_per == "query_head":
            return segment.queries_HSD
        return segment.queries_HSD.reshape(groups, -1, size)

    def _walk(self, q_HD: Tensor, wanted: int, effort: int | None) -> GraphHits:
        heads_a_graph = len(q_HD) // len(self._graphs)
        seeds_HS = self._last_ids_HK
        if seeds_HS is not None and len(seeds_HS) != len(q_HD):
            seeds_HS = None
        return search(
            [graph for graph in self._graphs for _ in range(heads_a_graph)],
            q_HD.cpu(),
            wanted,
            beam=effort or max(self.walk.beam, 2 * wanted),
            seeds_HS=seeds_HS,
            keys_GTDs=self._keys_GTDs,
        )
