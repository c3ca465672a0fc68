"""StreamingLLM: attention sinks and a sliding window, whatever the query."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from longspan.methods.base import Method
from longspan.methods.frame import Reading, StoredState
from longspan.options import Count, Fraction, Tokens, settings
from longspan.placement.base import OnePlace

if TYPE_CHECKING:
    from torch import Tensor

    from longspan.types import LayerGeometry


@settings
class StreamingLLM(Method):
    """Xiao et al., "Efficient Streaming Language Models with Attention Sinks", arXiv 2309.17453.

    sink_tokens: first tokens kept. budget: share of the context attended, sinks included.
    window_tokens: a window of that many last tokens instead of a budget. placement: where keys and
    values live. Deviations: tokens keep their true positions, the prompt is read with full
    attention, and what is evicted stays in the store (unread), so that recall can be measured.
    """

    name: ClassVar[str] = "streaming_llm"

    sink_tokens: Tokens = 4
    budget: Fraction = 0.018
    window_tokens: Count | None = None
    placement: OnePlace = "gpu"

    def layer(self, geometry: LayerGeometry) -> StreamingState:
        """See Method."""
        return StreamingState(self, geometry)


class StreamingState(StoredState):
    """One layer of one sequence."""

    def __init__(self, method: StreamingLLM, geometry: LayerGeometry) -> None:
        super().__init__(geometry, method.placement)
        self.method = method

    def read(self, q_HD: Tensor) -> Reading:
        """Sinks and window."""
        window = self.method.window_tokens
        if window is None:
            share = round(self.method.budget * len(self.store))
            window = max(1, share - self.method.sink_tokens)
        return self.read_steady(q_HD, self.zones(self.method.sink_tokens, window))
