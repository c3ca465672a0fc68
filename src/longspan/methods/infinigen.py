"""InfiniGen: the best tokens by a few columns of every key, for a query guessed a layer early."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, ClassVar, cast

from pydantic import Field

from longspan.indexes.key_codes import CodeOptions, KeyCodesIndex
from longspan.methods.retrieval import RetrievalState
from longspan.methods.vector_retrieval import ShareRetrieval
from longspan.options import Count, Fraction, Layers, Slack, Tokens, settings

if TYPE_CHECKING:
    from torch import Tensor

    from longspan.indexes.base import Budget, KeyIndex, SearchResult
    from longspan.methods.plan import Plan
    from longspan.types import LayerGeometry, Partial


@settings
class InfiniGen(ShareRetrieval):
    """Lee et al., "InfiniGen: Efficient Generative Inference of Large Language Models with Dynamic
    KV Cache Management", OSDI 2024, arXiv 2406.19707.

    Beside the settings of ShareRetrieval. speculate: what a layer retrieves is chosen by its query
    as the attention input of the layer below makes it, with this layer's weights; false: by its own
    query, as it is where there is no layer below, or none without a sliding window. dense_layers:
    the first two, as in the authors' code: what enters the first says little of the second's query.
    rank: columns that are scanned, a share of the head size, filled up to a multiple of 32.
    alpha: retrieved are only as many tokens as have a score at most that much below the best, a
    mean over the query heads, and at most the budget (the paper: 4 or 5, and a fifth of the
    context; RetroInfer and RetrievalAttention compare with fixed budgets, which null has).
    candidates: see Loki; keys are multiplied with the guess. query_window, query_tokens: prefill
    queries that say which columns count, the last ones and at most so many others.

    Deviations. Keys are turned by the singular vectors of the prompt's own queries, behind the
    rotary embedding, one turn a KV head for all its query heads; the paper calibrates a turn for
    each head beforehand, and chooses columns by the prompt. Columns are stored in a byte each,
    beside the keys. A guess is the layer's whole query (and key and value, which are dropped)
    rather than its columns. There are static tokens; alpha counts from their scores too, but does
    not count them. Generated tokens are written in codes in stretches of update_tokens. Nothing is
    evicted from host memory, and what is guessed is not fetched before its layer begins.
    """

    name: ClassVar[str] = "infinigen"

    sink_tokens: Tokens = 4
    local_tokens: Tokens = 64
    dense_layers: Layers = (0, 1)
    speculate: bool = True
    rank: Fraction = 0.3
    alpha: Annotated[float, Field(gt=0)] | None = None
    candidates: Slack = 1.0
    query_window: Tokens = 512
    query_tokens: Count = 2048

    def index(self, geometry: LayerGeometry) -> KeyCodesIndex:
        """See VectorRetrieval."""
        return KeyCodesIndex(
            CodeOptions(rank=self.rank, metric="skewed", candidates=self.candidates)
        )

    @property
    def query_sample(self) -> tuple[int, int]:
        """See VectorRetrieval."""
        return self.query_window, self.query_tokens

    def state(self, geometry: LayerGeometry, plan: Plan, index: KeyIndex) -> InfiniGenState:
        """See VectorRetrieval."""
        return InfiniGenState(geometry, plan, index, self)

    @property
    def guesses(self) -> bool:
        """See Method."""
        return self.speculate

    def static_obstacle(self, geometry: LayerGeometry) -> str | None:
        """See Method."""
        return f"method {self.name!r} searches before the layer that attends is reached"


class InfiniGenState(RetrievalState):
    """One layer of one sequence."""

    def __init__(
        self, geometry: LayerGeometry, plan: Plan, index: KeyIndex, method: InfiniGen
    ) -> None:
        super().__init__(geometry, plan, index)
        self.method = method
        self._guess_HD: Tensor | None = None

    @property
    def expects(self) -> bool:
        """See LayerState. Not while nothing is indexed."""
        return self.method.speculate and self.index.tokens > 0

    def expect(self, q_HD: Tensor) -> None:
        """See LayerState."""
        self._guess_HD = q_HD

    def decode(self, q_HD: Tensor) -> Partial:
        """See LayerState. What is retrieved by a guess is attended by `q_HD`."""
        total = super().decode(q_HD)
        self._guess_HD = None
        return total

    def search(self, q_HD: Tensor, budget: Budget) -> SearchResult:
        """See RetrievalState."""
        if self._guess_HD is not None:
            q_HD = self._guess_HD.to(q_HD.device)
        if self.method.alpha is None:
            return super().search(q_HD, budget)
        most = min(budget.retrieve_tokens, self._near_best(q_HD))
        found = super().search(q_HD, replace(budget, retrieve_tokens=most))
        distances, read = cast("KeyCodesIndex", self.index).cost(len(q_HD), 0)  # counting scans too
        return replace(found, distances=found.distances + distances, bytes=found.bytes + read)

    def _near_best(self, q_HD: Tensor) -> int:
        """Tokens that alpha leaves, at least one."""
        assert self.method.alpha is not None
        start, stop = self.indexed
        beside_GTDs = [
            part.keys_GTD.to(q_HD.device)
            for zone in self.zones(start, len(self.store) - stop)
            for part in self.store.slices(*zone)
        ]
        below = self.method.alpha / self.geometry.scale
        return max(1, int(cast("KeyCodesIndex", self.index).near_best(q_HD, below, beside_GTDs)))
