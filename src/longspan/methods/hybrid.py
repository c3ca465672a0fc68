"""Hybrid: the best tokens, and clusters for everything else."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from longspan.indexes.attention_graph import AttentionGraphIndex, WalkOptions
from longspan.indexes.codes_static import StaticCodes, stretches
from longspan.indexes.hybrid import Finder, HybridIndex
from longspan.indexes.hybrid_static import StaticHybrids
from longspan.indexes.key_codes import CodeOptions, KeyCodesIndex
from longspan.indexes.wave import WaveIndex
from longspan.indexes.wave_clustering import counts
from longspan.indexes.wave_options import WaveOptions
from longspan.indexes.wave_static import most_of
from longspan.methods.plan import Amount
from longspan.methods.retrieval import RetrievalState
from longspan.methods.static import StaticStored, elsewhere
from longspan.methods.static_chosen import listed_bytes
from longspan.methods.static_hybrid import StaticHybrid
from longspan.methods.vector_retrieval import VectorRetrieval
from longspan.options import Count, Fraction, Number, Share, Tokens, settings
from longspan.types import StepBytes
from longspan_kernels.attention_graph import GraphOptions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from longspan.methods.base import LayerState
    from longspan.types import LayerGeometry


@settings
class Hybrid(VectorRetrieval):
    """RetrievalAttention (arXiv 2409.10516) with the estimation of RetroInfer (arXiv 2505.02922).

    Retrieval of the best tokens alone loses what many tokens hold together: word counting falls
    from 72 to 49 points in the paper. Here clusters stand for every token that is not read.

    Beside the settings of VectorRetrieval; what the query heads of a group retrieve is read by all
    of them. estimation_budget: share of the clusters that stand for what is not read, the best
    ones where it is below 1. tokens_per_cluster, segment_tokens, kmeans_rounds: the clustering.
    tokens_by: the best tokens are found by a `scan` of every key's code (see Loki, with `rank`
    columns), or by a walk through an attention `graph` with `beam` candidates, slow to build and
    faster for few tokens of very many. query_window, query_tokens: prefill queries that either is
    made of.

    Decode steps of fixed shape are those of tokens_by=scan.
    """

    name: ClassVar[str] = "hybrid"

    estimation_budget: Share = 1.0
    tokens_per_cluster: Count = 16
    segment_tokens: Count = 8192
    kmeans_rounds: Number = 10
    tokens_by: Literal["scan", "graph"] = "scan"
    rank: Fraction = 1.0
    query_window: Tokens = 512
    query_tokens: Count = 2048
    beam: Count = 192

    def index(self, geometry: LayerGeometry) -> HybridIndex:
        """See VectorRetrieval."""
        wave = WaveOptions(
            tokens_per_cluster=self.tokens_per_cluster,
            segment_tokens=self.segment_tokens,
            kmeans_rounds=self.kmeans_rounds,
            softcap=geometry.softcap,
        )
        finder: Finder = KeyCodesIndex(CodeOptions(rank=self.rank))
        if self.tokens_by == "graph":
            finder = AttentionGraphIndex(GraphOptions(), WalkOptions(beam=self.beam, exact=False))
        return HybridIndex(finder, WaveIndex(wave))

    def static_obstacle(self, geometry: LayerGeometry) -> str | None:
        """See Method."""
        if self.tokens_by == "graph":
            return "method.tokens_by = 'graph' walks on a CPU; right would be scan"
        return elsewhere(self.placement, geometry, self.dense_layers)

    def static_layer(self, states: Sequence[LayerState], limits: Sequence[int]) -> StaticStored:
        """See Method."""
        indexed = isinstance(states[0], RetrievalState)
        return StaticHybrid(states, limits) if indexed else StaticStored(states, limits)

    def searched_bytes(
        self, geometry: LayerGeometry, held: Sequence[int], limits: Sequence[int]
    ) -> StepBytes:
        """See VectorRetrieval."""
        index, rows, tokens = self.index(geometry), len(held), max(limits)
        if not isinstance(index.finder, KeyCodesIndex):
            return StepBytes()
        parts = stretches(held, limits, self.update_tokens)
        codes = StaticCodes.bytes_of(index.finder.options, rows, tokens, parts, geometry)
        options, budget = index.wave.options, self.budget(geometry.layer, tokens)
        indexed = [(counts(each, options).total, each) for each in held]
        sizes = most_of(options, budget, tokens, indexed, self.update_tokens)
        found = StaticHybrids.bytes_of(codes, options, sizes, rows, tokens, geometry)
        most = budget.retrieve_tokens * geometry.query_heads  # of all KV heads of a row
        listed = listed_bytes(rows, most) + listed_bytes(rows * geometry.kv_heads, 0)
        return StepBytes(found.kept + listed, found.passing, moved=True)

    @property
    def query_sample(self) -> tuple[int, int]:
        """See VectorRetrieval."""
        return self.query_window, self.query_tokens

    @property
    def estimate(self) -> Amount:
        """See VectorRetrieval."""
        return Amount(share=self.estimation_budget)
