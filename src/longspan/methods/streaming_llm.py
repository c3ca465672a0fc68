"""StreamingLLM: attention sinks and a sliding window, whatever the query."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch

from longspan.methods.base import Method
from longspan.methods.frame import Reading, StoredState
from longspan.methods.static import StaticStored, elsewhere
from longspan.options import Count, Fraction, Tokens, settings
from longspan.placement.base import OnePlace
from longspan.types import Selection
from longspan_kernels.step_slots import zone_runs
from longspan_kernels.types import Chosen

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from longspan.methods.base import LayerState
    from longspan.types import LayerGeometry, Partial


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

    def static_obstacle(self, geometry: LayerGeometry) -> str | None:
        """See Method."""
        return elsewhere(self.placement, geometry)

    def static_layer(self, states: Sequence[LayerState], limits: Sequence[int]) -> StaticStreaming:
        """See Method."""
        return StaticStreaming(states, limits)


class StreamingState(StoredState):
    """One layer of one sequence."""

    def __init__(self, method: StreamingLLM, geometry: LayerGeometry) -> None:
        super().__init__(geometry, method.placement)
        self.method = method

    def read(self, q_HD: Tensor) -> Reading:
        """Sinks and window."""
        return self.read_steady(q_HD, self.kept(len(self.store)))

    def kept(self, tokens: int) -> tuple[tuple[int, int], ...]:
        """The slot ranges that are attended of so many tokens."""
        method, window = self.method, self.method.window_tokens
        if window is None:
            window = max(1, round(method.budget * tokens) - method.sink_tokens)
        return self.zones(method.sink_tokens, window, tokens)


class StaticStreaming(StaticStored):
    """In buffers of fixed shape: where the window begins is counted on the device."""

    states: Sequence[StreamingState]

    def attend(self, q_XD: Tensor, at_B: Tensor) -> list[Partial]:
        """See StaticStored."""
        method, length_B = self.states[0].method, at_B + 1
        sink, window_B = method.sink_tokens, torch.full_like(at_B, method.window_tokens or 0)
        if method.window_tokens is None:
            share_B = (length_B.double() * method.budget).round().long()  # to even, as Python's
            window_B = (share_B - sink).clamp(min=1)
        start_B = length_B - window_B
        apart_B = start_B > sink
        indexed_2B = torch.stack([apart_B * sink, apart_B * start_B])
        heads = len(self.pool.keys_NCD)
        runs = zone_runs(at_B, heads, Chosen.nothing(indexed_2B, heads))
        most = method.window_tokens or round(method.budget * self.capacity)
        return [self.pool.attend(q_XD, runs, sink + most)]

    def reading(self, row: int, length: int) -> Reading:
        """See StaticStored."""
        return Reading([], Selection(self.states[row].kept(length)))
