"""Quest: pages of consecutive tokens, chosen by a bound of what the query could find in them."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from longspan.indexes.pages import PageIndex
from longspan.methods.paged import PagedRetrieval
from longspan.options import Count, Layers, Tokens, settings
from longspan_kernels.types import Sharing

if TYPE_CHECKING:
    from longspan.types import LayerGeometry


@settings
class Quest(PagedRetrieval):
    """Tang et al., "Quest: Query-Aware Sparsity for Efficient Long-Context LLM Inference",
    arXiv 2406.10774.

    Beside the settings of PagedRetrieval, of whose pages three are read at least. share: pages
    chosen a query head, as in the paper, or a KV head, by the largest bound of its group.

    The paper reads 512 to 4,096 tokens whatever the context; the default is a share of it, to be
    compared with RetroInfer at equal tokens. The page being written is read in full, as are up to
    update_tokens before it, which enter the index together; the paper has no static tokens.
    """

    name: ClassVar[str] = "quest"

    sink_tokens: Tokens = 0
    local_tokens: Tokens = 0
    update_tokens: Count = 64
    dense_layers: Layers = (0, 1)
    share: Sharing = "query_head"

    def static_obstacle(self, geometry: LayerGeometry) -> str | None:
        """See Method."""
        if self.placement == "wave_buffer" and self.share == "query_head":
            return "method.share = 'query_head' with placement=wave_buffer, which reads by KV head"
        return super().static_obstacle(geometry)

    def index(self, geometry: LayerGeometry) -> PageIndex:
        """See VectorRetrieval."""
        return PageIndex(self.page_tokens, self.share)
