"""RetrievalAttention: static tokens, and per query head the best tokens of an attention graph."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from longspan.indexes.attention_graph import AttentionGraphIndex, WalkOptions
from longspan.methods.retrieval import RetrievalState
from longspan.methods.split import SplitState
from longspan.methods.vector_retrieval import VectorRetrieval
from longspan.options import Count, Tokens, settings
from longspan_kernels.attention_graph import GraphOptions, Metric, Storage

if TYPE_CHECKING:
    from longspan.indexes.base import KeyIndex
    from longspan.methods.plan import Plan
    from longspan.types import LayerGeometry


@settings
class RetrievalAttention(VectorRetrieval):
    """Liu et al., "RetrievalAttention: Accelerating Long-Context LLM Inference via Vector
    Retrieval", arXiv 2409.10516.

    Beside the settings of VectorRetrieval. query_window, query_tokens: prefill queries the graph is
    made of, the last ones and at most so many others. beam: candidates a search holds, at least
    twice what it retrieves. degree: edges a node. storage: what the walk reads.

    static: `device` keeps sink, local window and what waits for the index on the model's device as
    well and attends them there while a thread searches and attends the rest where it is placed.

    Ablations. graph_per: one graph a KV head, from its group's queries, or one a query head, as in
    the paper. metric: distance between keys by their scores with the `queries`, or that of the
    `keys`. seeds: tokens found by the last step with which the next begins.

    The paper publishes none of the graph's parameters and inserts no generated token.
    """

    name: ClassVar[str] = "retrieval_attention"

    query_window: Tokens = 512
    query_tokens: Count = 2048
    beam: Count = 192
    degree: Annotated[int, Field(ge=4, le=GraphOptions().candidates)] = 28
    storage: Storage = "int8"
    graph_per: Literal["kv_head", "query_head"] = "kv_head"
    metric: Metric = "queries"
    seeds: Tokens = 32
    static: Literal["with_rest", "device"] = "with_rest"

    def index(self, geometry: LayerGeometry) -> AttentionGraphIndex:
        """See VectorRetrieval."""
        options = GraphOptions(degree=self.degree, storage=self.storage, metric=self.metric)
        walk = WalkOptions(graph_per=self.graph_per, beam=self.beam, seeds=self.seeds)
        return AttentionGraphIndex(options, walk, geometry.device)

    def state(self, geometry: LayerGeometry, plan: Plan, index: KeyIndex) -> RetrievalState:
        """See VectorRetrieval."""
        if self.static == "with_rest":
            return RetrievalState(geometry, plan, index)
        if self.placement != "cpu":
            raise ValueError(
                f"method.placement = {self.placement!r}: method.static=device keeps the rest in"
                " host memory; right would be cpu"
            )
        return SplitState(geometry, plan, index)

    @property
    def query_sample(self) -> tuple[int, int]:
        """See VectorRetrieval."""
        return self.query_window, self.query_tokens
