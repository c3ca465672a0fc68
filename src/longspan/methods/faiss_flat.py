"""Static tokens and the exact best tokens by FAISS: what retrieval with an exact index costs."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from longspan.indexes.faiss_flat import FaissFlatIndex
from longspan.methods.vector_retrieval import VectorRetrieval
from longspan.options import settings

if TYPE_CHECKING:
    from longspan.types import LayerGeometry


@settings
class FaissFlat(VectorRetrieval):
    """The exact scan of RetrievalAttention's comparison (arXiv 2409.10516, section 4), one index a
    KV head.

    Beside the settings of VectorRetrieval. device: where FAISS searches; `gpu` takes its GPU build.
    """

    name: ClassVar[str] = "faiss_flat"

    device: Literal["cpu", "gpu"] = "cpu"

    def index(self, geometry: LayerGeometry) -> FaissFlatIndex:
        """See VectorRetrieval."""
        return FaissFlatIndex(self.device)
