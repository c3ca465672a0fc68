"""Static tokens and the best tokens of FAISS's inverted file."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from longspan.indexes.faiss_ivf import FaissIvfIndex
from longspan.methods.vector_retrieval import VectorRetrieval
from longspan.options import Count, Fraction, settings

if TYPE_CHECKING:
    from longspan.types import LayerGeometry


@settings
class FaissIvf(VectorRetrieval):
    """The inverted file of RetrievalAttention's comparison (arXiv 2409.10516, section 4), one index
    a KV head.

    Beside the settings of VectorRetrieval. lists: how many, null for the square root of the tokens.
    probe_budget: share of the lists that is scanned; the paper needs 0.3 for equal accuracy.
    device: where FAISS searches; `gpu` takes its GPU build.
    """

    name: ClassVar[str] = "faiss_ivf"

    lists: Count | None = None
    probe_budget: Fraction = 0.3
    device: Literal["cpu", "gpu"] = "cpu"

    def index(self, geometry: LayerGeometry) -> FaissIvfIndex:
        """See VectorRetrieval."""
        return FaissIvfIndex(self.lists, self.probe_budget, self.device)
