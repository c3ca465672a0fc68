"""Static tokens and the best tokens of FAISS's HNSW graph."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from longspan.indexes.faiss_hnsw import FaissHnswIndex, KeyForm
from longspan.methods.vector_retrieval import VectorRetrieval
from longspan.options import Count, settings

if TYPE_CHECKING:
    from longspan.types import LayerGeometry


@settings
class FaissHnsw(VectorRetrieval):
    """The HNSW graph of RetrievalAttention's comparison (arXiv 2409.10516, section 2), one index a
    KV head.

    Beside the settings of VectorRetrieval. links: edges a node. build_beam, beam: breadth of the
    search while building and searching. keys: `raw`, `centred` by their mean, or `augmented` by a
    coordinate that turns product into distance.
    """

    name: ClassVar[str] = "faiss_hnsw"

    links: Count = 32
    build_beam: Count = 200
    beam: Count = 512
    keys: KeyForm = "centred"

    def index(self, geometry: LayerGeometry) -> FaissHnswIndex:
        """See VectorRetrieval."""
        return FaissHnswIndex(self.links, self.build_beam, self.beam, self.keys)
