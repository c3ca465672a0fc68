"""Static tokens and the best tokens of a vector index: RetrievalAttention's frame."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

from longspan.methods.base import Method
from longspan.methods.frame import StoredState
from longspan.methods.retrieval import Amount, Plan, RetrievalState, share_of_layer
from longspan.options import Count, Fraction, Fractions, Layers, Share, Tokens, settings
from longspan.placement.base import CachePolicy, PlacementName

if TYPE_CHECKING:
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
    top_tokens: Count = 100
    retrieval_budget: Fraction | None = None
    layer_budgets: Fractions | None = None
    update_tokens: Count = 1024
    dense_layers: Layers = ()
    placement: PlacementName = "cpu"
    cache_budget: Share = 0.05
    cache_policy: CachePolicy = "lfu"

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
        share, (window, cap) = self.retrieval_budget, self.query_sample
        if self.layer_budgets is not None:
            share = share_of_layer(self.layer_budgets, geometry.layer)
        retrieve = Amount(tokens=self.top_tokens) if share is None else Amount(share=share)
        plan = Plan(
            sink_tokens=self.sink_tokens,
            local_tokens=self.local_tokens,
            update_tokens=self.update_tokens,
            retrieve=retrieve,
            estimate=self.estimate,
            placement=self.place,
            query_window=window,
            query_cap=cap,
        )
        return self.state(geometry, plan, self.index(geometry))

    def state(self, geometry: LayerGeometry, plan: Plan, index: KeyIndex) -> RetrievalState:
        """How the parts of a step are put together."""
        return RetrievalState(geometry, plan, index)
