"""Static tokens and the best tokens of a vector index: RetrievalAttention's frame."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

from longspan.indexes.base import Budget
from longspan.methods.base import Method
from longspan.methods.frame import StoredState
from longspan.methods.plan import Amount, Plan, share_of_layer
from longspan.methods.retrieval import RetrievalState
from longspan.options import Count, Fraction, Fractions, Layers, Share, Tokens, settings
from longspan.placement.base import CachePolicy, PlacementName
from longspan.types import StepBytes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from longspan.indexes.base import KeyIndex
    from longspan.types import LayerGeometry


@settings
class VectorRetrieval(Method):
    """What its subclasses share.

    Static: the first sink_tokens, the last local_tokens and whatever is not indexed yet. top_tokens
    (or retrieval_budget, a share of the indexed tokens, or layer_budgets, such a share of each of
    the model's layers) are retrieved per query head.
    update_tokens: generated tokens enter the index in stretches of this many; a context with fewer
    tokens outside the static ones is attended in full. dense_layers: numbers of layers attended in
    full. placement: where keys and values live.
    cache_budget, cache_policy: of `placement=wave_buffer`, see RetroInfer.
    """

    sink_tokens: Tokens = 128
    local_tokens: Tokens = 512
    top_tokens: Count | None = 100
    retrieval_budget: Fraction | None = None
    layer_budgets: Fractions | None = None
    update_tokens: Count = 1024
    dense_layers: Layers = ()
    placement: PlacementName = "cpu"
    cache_budget: Share = 0.05
    cache_policy: CachePolicy = "tinylfu"

    @abstractmethod
    def index(self, geometry: LayerGeometry) -> KeyIndex:
        """An empty index for one layer of one sequence."""

    @property
    def query_sample(self) -> tuple[int, int]:
        """Last prefill queries kept and cap of the sample of others, for indexes that want them."""
        return 0, 0

    @property
    def estimate(self) -> Amount:
        """Tokens that may be represented by summaries."""
        return Amount()

    def layer(self, geometry: LayerGeometry) -> StoredState:
        """See Method."""
        if geometry.layer in self.dense_layers:
            return StoredState(geometry, self.place)
        window, cap = self.query_sample
        plan = Plan(
            sink_tokens=self.sink_tokens,
            local_tokens=self.local_tokens,
            update_tokens=self.update_tokens,
            retrieve=self.amount(geometry.layer),
            estimate=self.estimate,
            placement=self.place,
            query_window=window,
            query_cap=cap,
        )
        return self.state(geometry, plan, self.index(geometry))

    def static_bytes(
        self, geometry: LayerGeometry, held: Sequence[int], limits: Sequence[int]
    ) -> StepBytes:
        """See Method."""
        if geometry.layer in self.dense_layers:
            return StepBytes()
        return self.searched_bytes(geometry, held, limits)

    def searched_bytes(
        self, geometry: LayerGeometry, held: Sequence[int], limits: Sequence[int]
    ) -> StepBytes:
        """As `static_bytes`, of a layer with an index."""
        return StepBytes()

    def budget(self, layer: int, tokens: int) -> Budget:
        """Of a search of this layer over so many tokens."""
        return Budget(self.amount(layer).of(tokens), self.estimate.of(tokens))

    def amount(self, layer: int) -> Amount:
        """What a query head of this layer retrieves."""
        if self.layer_budgets is not None:
            return Amount(share=share_of_layer(self.layer_budgets, layer))
        if self.retrieval_budget is not None:
            return Amount(share=self.retrieval_budget)
        if self.top_tokens is None:
            raise ValueError("method.top_tokens = None: right would be a count, or a budget")
        return Amount(tokens=self.top_tokens)

    def state(self, geometry: LayerGeometry, plan: Plan, index: KeyIndex) -> RetrievalState:
        """How the parts of a step are put together."""
        return RetrievalState(geometry, plan, index)


@settings
class ShareRetrieval(VectorRetrieval):
    """As its base, for methods that retrieve a share of the context unless they are given
    top_tokens, which then count alone. The default is RetroInfer's, for a comparison at equal
    tokens.
    """

    top_tokens: Count | None = None
    retrieval_budget: Fraction | None = 0.018

    def amount(self, layer: int) -> Amount:
        """See VectorRetrieval."""
        if self.top_tokens is not None:
            return Amount(tokens=self.top_tokens)
        return super().amount(layer)
