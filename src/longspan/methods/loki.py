"""Loki: static tokens, and the best tokens by a few columns of every key."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from longspan.indexes.codes_static import StaticCodes, stretches
from longspan.indexes.key_codes import CodeOptions, KeyCodesIndex
from longspan.methods.retrieval import RetrievalState
from longspan.methods.static import StaticStored, elsewhere
from longspan.methods.static_chosen import listed_bytes
from longspan.methods.static_codes import StaticScanned
from longspan.methods.vector_retrieval import ShareRetrieval
from longspan.options import Count, Fraction, Slack, Tokens, settings
from longspan.types import StepBytes
from longspan_kernels.attention_graph import Metric

if TYPE_CHECKING:
    from collections.abc import Sequence

    from longspan.methods.base import LayerState
    from longspan.types import LayerGeometry


@settings
class Loki(ShareRetrieval):
    """Singhania et al., "Loki: Low-rank Keys for Efficient Sparse Attention", NeurIPS 2024, arXiv
    2406.02542.

    Beside the settings of ShareRetrieval. rank: columns that are scanned, a share of the head size,
    filled up to a multiple of 32 (the paper: a quarter, and a quarter of the tokens retrieved).
    metric: columns keep the scores of the prompt's `queries` best, or are the principal axes of the
    `keys`, as in the paper. candidates: so many times what is retrieved is ordered by the keys
    themselves; 1, as in the paper: the columns decide, as they do where the keys are not with them
    (placement=wave_buffer on a GPU). query_window, query_tokens: prefill queries that say what
    counts where metric is `queries`, the last ones and at most so many others.

    Deviations. Axes are those of the prompt, layer and KV head; the paper's are calibrated
    beforehand on text. Columns are stored in a byte each, beside the keys; the paper turns the
    keys themselves and reads their first columns. There are static tokens, and generated tokens
    are written in codes in stretches of update_tokens, in the columns of the first stretch, however
    short that was.

    Decode steps of fixed shape are those of placement=gpu (cpu where the model is on a CPU).
    """

    name: ClassVar[str] = "loki"

    sink_tokens: Tokens = 4
    local_tokens: Tokens = 64
    rank: Fraction = 0.5
    metric: Metric = "queries"
    candidates: Slack = 1.25
    query_window: Tokens = 512
    query_tokens: Count = 2048

    def index(self, geometry: LayerGeometry) -> KeyCodesIndex:
        """See VectorRetrieval."""
        return KeyCodesIndex(
            CodeOptions(rank=self.rank, metric=self.metric, candidates=self.candidates)
        )

    @property
    def query_sample(self) -> tuple[int, int]:
        """See VectorRetrieval."""
        if self.metric == "keys":
            return 0, 0
        return self.query_window, self.query_tokens

    def static_obstacle(self, geometry: LayerGeometry) -> str | None:
        """See Method."""
        if self.placement == "wave_buffer":
            return f"method.placement = {self.placement!r} reads by KV head, and query heads choose"
        return elsewhere(self.placement, geometry)

    def static_layer(self, states: Sequence[LayerState], limits: Sequence[int]) -> StaticStored:
        """See Method."""
        scanned = isinstance(states[0], RetrievalState)
        return StaticScanned(states, limits) if scanned else StaticStored(states, limits)

    def searched_bytes(
        self, geometry: LayerGeometry, held: Sequence[int], limits: Sequence[int]
    ) -> StepBytes:
        """See VectorRetrieval."""
        rows, tokens, options = len(held), max(limits), self.index(geometry).options
        parts = stretches(held, limits, self.update_tokens)
        codes = StaticCodes.bytes_of(options, rows, tokens, parts, geometry)
        most = self.budget(geometry.layer, tokens).retrieve_tokens
        listed = listed_bytes(rows * geometry.query_heads, most)
        return StepBytes(codes.kept + listed, codes.passing, moved=True)
