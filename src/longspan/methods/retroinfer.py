"""RetroInfer: clusters of keys, the best read exactly, the next best estimated."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import model_validator

from longspan.indexes.base import Budget
from longspan.indexes.wave import WaveIndex
from longspan.indexes.wave_clustering import counts
from longspan.indexes.wave_options import Tail, Vote, WaveOptions
from longspan.indexes.wave_static import StaticClusters, most_of
from longspan.methods.base import Method
from longspan.methods.plan import Amount, Plan, share_of_layer
from longspan.methods.static import elsewhere
from longspan.methods.static_chosen import listed_bytes
from longspan.methods.static_wave import StaticWave
from longspan.methods.wave_step import WaveStepState
from longspan.options import Count, Fraction, Fractions, Number, Share, Slack, Tokens, settings
from longspan.placement.base import CachePolicy, PlacementName
from longspan.types import StepBytes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from longspan.methods.base import LayerState
    from longspan.types import LayerGeometry


@settings
class RetroInfer(Method):
    """Chen et al., "RetroInfer: A Vector Storage Engine for Scalable Long-Context LLM Inference",
    PVLDB 19(5), arXiv 2505.02922.

    Steady zone: the first sink_tokens, the last local_tokens and whatever is not indexed yet.
    retrieval_budget, estimation_budget: shares of the clusters attended token by token, and by
    their summaries. tolerance: of the latter those are attended token by token too whose summary is
    expected to err by at least this share of a head's attention; 0: none. min_clusters: at least so
    many are attended token by token, however few retrieval_budget are. tokens_per_cluster,
    segment_tokens, kmeans_rounds: the clustering.
    outlier_budget: share of the tokens that are clusters of their own, those that the centroid of
    their cluster speaks for least; 0 where final_assignment is `global`.
    update_tokens: generated tokens enter the index in stretches of this many; a context with fewer
    tokens outside the steady zone is attended in full. placement: where keys and values live.
    cache_budget: share of them that `placement=wave_buffer` keeps where the model is. cache_policy:
    which of them.
    summaries: centroids and mean values stored in the dtype of the `model` or in `float32`.
    clusters_per_group, group_slack: search groups of about so many clusters first, and of them as
    many as hold group_slack times the clusters that are wanted; null scores all clusters. seeding:
    clusters begin with `even`ly spaced keys, with keys `farthest` from one another by angle, or
    half and half (`mixed`).

    vote: how a group of query heads ranks clusters: by what they are estimated to weigh (`mass`:
    size and spread included), or by their centroids (`sum`, `max`, `sized`, `unmet`).
    estimation: summaries weigh as their keys' mean times their number (`clusters`: a lower bound),
    with what the spread of the keys adds (`gaussian`), or there are `none`.

    Ablations. final_assignment: `segment`, as the paper says, or `global`, as its code does. tail:
    whether the clusters beyond both zones weigh in with the mean value of their segment.
    layer_budgets: a retrieval_budget of each of the model's layers.

    Deviations: votes, sizes and sums in float32, whatever the model; budgets are shares of all
    clusters at every step, not of each stretch; segments need not divide the context; layers take
    in generated tokens one step after another; clusters begin with keys that lie apart too (the
    paper: seeding=even), give up outliers (outlier_budget=0), are ranked by mass (vote=sum),
    estimated with their spread (estimation=clusters) and read where that would not do (tolerance=0)
    besides a smaller share that always is (retrieval_budget=0.018; experiments/wave_ablations has
    the reasons for all six); blocks go by how often they were read (cache_policy=lru).
    RetroInferPaper has the paper's. In both all layers share the pages of the block
    cache, which begins with what the prompt's last query asks for.
    """

    name: ClassVar[str] = "retroinfer"

    sink_tokens: Tokens = 4
    local_tokens: Tokens = 64
    retrieval_budget: Fraction = 0.005
    min_clusters: Count = 6
    estimation_budget: Share = 0.232
    tolerance: Share = 0.002
    tokens_per_cluster: Count = 16
    outlier_budget: Share = 0.02
    segment_tokens: Count = 8192
    kmeans_rounds: Number = 10
    update_tokens: Count = 1024
    placement: PlacementName = "cpu"
    cache_budget: Share = 0.05
    cache_policy: CachePolicy = "tinylfu"
    summaries: Literal["model", "float32"] = "model"
    clusters_per_group: Count | None = None
    group_slack: Slack = 2.0
    seeding: Literal["even", "mixed", "farthest"] = "mixed"
    final_assignment: Literal["segment", "global"] = "segment"
    vote: Vote = "mass"
    estimation: Literal["clusters", "gaussian", "none"] = "gaussian"
    tail: Tail = "none"
    layer_budgets: Fractions | None = None

    @model_validator(mode="after")
    def _clusters_go_together(self) -> Self:
        self.clusters(None)
        return self

    def clusters(self, softcap: float | None) -> WaveOptions:
        """The settings of the index. Raises ValueError where two of them do not go together."""
        return WaveOptions(
            tokens_per_cluster=self.tokens_per_cluster,
            outlier_budget=self.outlier_budget,
            segment_tokens=self.segment_tokens,
            kmeans_rounds=self.kmeans_rounds,
            seeding=self.seeding,
            final_assignment=self.final_assignment,
            clusters_per_group=self.clusters_per_group,
            group_slack=self.group_slack,
            summaries=self.summaries,
            vote=self.vote,
            gaussian=self.estimation == "gaussian",
            min_clusters=self.min_clusters,
            tail=self.tail,
            tolerance=0.0 if self.estimation == "none" else self.tolerance,
            softcap=softcap,
        )

    def amounts(self, layer: int) -> tuple[Amount, Amount]:
        """What is retrieved and estimated of this layer's clusters."""
        retrieve, budgets = self.retrieval_budget, self.layer_budgets
        if budgets is not None:
            retrieve = share_of_layer(budgets, layer)
        estimate = 0.0 if self.estimation == "none" else self.estimation_budget
        return Amount(share=retrieve), Amount(share=estimate)

    def layer(self, geometry: LayerGeometry) -> WaveStepState:
        """See Method."""
        retrieve, estimate = self.amounts(geometry.layer)
        plan = Plan(
            sink_tokens=self.sink_tokens,
            local_tokens=self.local_tokens,
            update_tokens=self.update_tokens,
            retrieve=retrieve,
            estimate=estimate,
            placement=self.place,
        )
        return WaveStepState(geometry, plan, WaveIndex(self.clusters(geometry.softcap)))

    def static_obstacle(self, geometry: LayerGeometry) -> str | None:
        """See Method. What ranks by the mass of the steady zone, or reads everything, is not
        built for fixed shapes; groups are not searched first.
        """
        if self.tail != "none":
            return f"method.tail = {self.tail!r} reads all clusters at every step"
        if self.clusters_per_group is not None:
            return (
                f"method.clusters_per_group = {self.clusters_per_group} searches groups first; the "
                "step scores all clusters"
            )
        if self.vote == "unmet":
            return "method.vote = 'unmet' needs the steady zone before the search"
        return elsewhere(self.placement, geometry)

    def static_layer(self, states: Sequence[LayerState], limits: Sequence[int]) -> StaticWave:
        """See Method."""
        return StaticWave(states, limits)

    def static_bytes(
        self, geometry: LayerGeometry, held: Sequence[int], limits: Sequence[int]
    ) -> StepBytes:
        """See Method."""
        rows, tokens, options = len(held), max(limits), self.clusters(geometry.softcap)
        indexed = [(counts(each, options).total, each) for each in held]
        retrieve, estimate = self.amounts(geometry.layer)
        budget = Budget(retrieve.of(tokens), estimate.of(tokens))
        sizes = most_of(options, budget, tokens, indexed, self.update_tokens)
        found = StaticClusters.bytes_of(options, sizes, rows, geometry)
        listed = listed_bytes(rows * geometry.kv_heads, sizes.width)
        return StepBytes(found.kept + listed, found.passing, moved=True)
