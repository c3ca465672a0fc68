"""ShadowKV: chunks of tokens, chosen by the mean of their keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from longspan.indexes.landmarks import LandmarkIndex
from longspan.methods.paged import PagedRetrieval
from longspan.options import Count, Share, Tokens, settings

if TYPE_CHECKING:
    from longspan.types import LayerGeometry


@settings
class ShadowKV(PagedRetrieval):
    """Sun et al., "ShadowKV: KV Cache in Shadows for High-Throughput Long-Context LLM Inference",
    arXiv 2410.21465.

    Beside the settings of PagedRetrieval, whose pages are its chunks. outlier_budget: share of the
    prompt's chunks that are read whatever is asked for, beside retrieval_budget: those that their
    mean speaks for least. local_tokens: four chunks, as in the authors' code.

    Deviations: keys are attended as they are (the paper rebuilds them from a form of rank 160 of
    what they were before rotation, to fit more of them into a GPU's memory); generated tokens enter
    the index in stretches of update_tokens (there they are all attended). One choice a KV head, by
    the largest share that a query head of its group gives a chunk, as in the paper.
    """

    name: ClassVar[str] = "shadowkv"

    sink_tokens: Tokens = 0
    local_tokens: Tokens = 32
    page_tokens: Count = 8
    outlier_budget: Share = 0.003

    def index(self, geometry: LayerGeometry) -> LandmarkIndex:
        """See VectorRetrieval."""
        return LandmarkIndex(self.page_tokens, self.outlier_budget)
