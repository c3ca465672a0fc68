"""PQCache: static tokens, and the best tokens by product-quantised keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from longspan.indexes.pq import MOST_BITS, PQIndex, check_parts
from longspan.indexes.pq_static import StaticProducts, sets_of
from longspan.methods.retrieval import RetrievalState
from longspan.methods.static import StaticStored, elsewhere
from longspan.methods.static_chosen import listed_bytes
from longspan.methods.static_pq import StaticPQ
from longspan.methods.vector_retrieval import ShareRetrieval
from longspan.options import Count, Number, Tokens, settings
from longspan.types import StepBytes
from longspan_kernels.types import Sharing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from longspan.methods.base import LayerState
    from longspan.types import LayerGeometry


@settings
class PQCache(ShareRetrieval):
    """Zhang et al., "PQCache: Product Quantization-based KVCache for Long Context LLM Inference",
    SIGMOD 2025, arXiv 2407.12820.

    Beside the settings of ShareRetrieval. parts, bits: a key is cut into so many sub-vectors, each
    written as the nearest of 2**bits centroids (RetroInfer compares with 4 and 8 beyond 16K
    tokens). kmeans_rounds: Lloyd rounds. share: what is retrieved serves all query heads of a KV
    head, as in the paper, or each `query_head` chooses for itself.

    Deviations. Budget: the paper reads 10 to 20% of the context, half of it a window of last
    tokens; here retrieval_budget is that of RetroInfer's paper, so that both read equally much (for
    PQCache's protocol: retrieval_budget=0.1, and a tenth of the context as local_tokens). Generated
    tokens are written in codes in stretches of update_tokens, exact until then; in the paper each
    one as it leaves the window (update_tokens=1). Training: a fixed number of rounds, from evenly
    spaced keys, on 256 keys a centroid at most, before decoding begins; the paper clusters all keys
    while the prompt is read, in as many rounds as that leaves time for. A turn longer than all that
    is indexed gets a codebook of its own. The paper's cache on the GPU, blocks of 128 tokens, is
    placement=wave_buffer's, token by token. Of tokens with equal codes, which weigh the same, steps
    of fixed shape may read others than the states do.
    """

    name: ClassVar[str] = "pqcache"

    sink_tokens: Tokens = 32
    local_tokens: Tokens = 64
    update_tokens: Count = 64
    parts: Count = 2
    bits: Annotated[int, Field(ge=1, le=MOST_BITS)] = 6
    kmeans_rounds: Number = 10
    share: Sharing = "kv_head"

    def index(self, geometry: LayerGeometry) -> PQIndex:
        """See VectorRetrieval. Raises ValueError where `parts` does not divide the head size."""
        check_parts(self.parts, geometry.head_size)
        return PQIndex(self.parts, self.bits, self.kmeans_rounds, self.share)

    def static_obstacle(self, geometry: LayerGeometry) -> str | None:
        """See Method."""
        if self.placement == "wave_buffer" and self.share == "query_head":
            return "method.share = 'query_head' with placement=wave_buffer, which reads by KV head"
        return elsewhere(self.placement, geometry, self.dense_layers)

    def static_layer(self, states: Sequence[LayerState], limits: Sequence[int]) -> StaticStored:
        """See Method."""
        coded = isinstance(states[0], RetrievalState)
        return StaticPQ(states, limits) if coded else StaticStored(states, limits)

    def searched_bytes(
        self, geometry: LayerGeometry, held: Sequence[int], limits: Sequence[int]
    ) -> StepBytes:
        """See VectorRetrieval."""
        index, tokens = self.index(geometry), max(limits)
        codes = StaticProducts.bytes_of(index, len(held), tokens, geometry)
        most = self.budget(geometry.layer, tokens).retrieve_tokens
        listed = listed_bytes(len(held) * sets_of(index, geometry), most)
        return StepBytes(codes.kept + listed, codes.passing, moved=True)
