"""InfLLM in buffers of fixed shape: pages, and what the tokens of the local window receive."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch

from longspan.methods.static_paged import StaticPaged
from longspan.methods.static_received import StaticReceived, keys_in
from longspan.tensors import spread

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from longspan.methods.base import LayerState
    from longspan.methods.infllm import InfLLMState
    from longspan.types import Partial


class StaticWeighed(StaticPaged):
    """As its base; a page that enters the index is known by what its tokens received."""

    def __init__(self, states: Sequence[LayerState], limits: Sequence[int]) -> None:
        super().__init__(states, limits)
        self.weighing = cast("Sequence[InfLLMState]", states)
        self.window = self.plan.local_tokens
        self.received = StaticReceived(self.geometry, len(states), self.capacity, self.window)
        for row, state in enumerate(self.weighing):
            self.received.take(row, state.weighed, len(state.store))

    def attend(self, q_XD: Tensor, at_B: Tensor) -> list[Partial]:
        """See StaticStored."""
        self.received.begin(at_B)
        return super().attend(q_XD, at_B)

    def attended(self, q_XD: Tensor, lse_X: Tensor, at_B: Tensor) -> None:
        """See StaticStored. The local window of the token, which is none of it, receives."""
        at_N1 = spread(at_B, self.geometry.kv_heads)[:, None]
        slot_NM = at_N1 - self.window + torch.arange(self.window, device=at_B.device)
        keys_NMD = keys_in(self.pool.keys_NCD, self.pool.near(slot_NM))
        self.received.note(q_XD, lse_X, keys_NMD, slot_NM, slot_NM >= 0)
        self.received.end(at_B)

    def absorb(self, lengths: Sequence[int], decoding: Sequence[int]) -> None:
        """See StaticStored."""
        for row in decoding:
            if lengths[row] >= self.weighing[row].next_update:
                self.received.give(row, self.weighing[row].weighed, lengths[row])
        super().absorb(lengths, decoding)

    def settle(self, lengths: Sequence[int]) -> None:
        """See StaticLayer."""
        super().settle(lengths)
        for row, (state, length) in enumerate(zip(self.weighing, lengths, strict=True)):
            self.received.give(row, state.weighed, length)
