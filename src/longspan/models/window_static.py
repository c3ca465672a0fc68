"""Sliding-window layers of several rows, in rings whose shape never changes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from longspan.methods.base import StaticLayer
from longspan_kernels.merge import merge
from longspan_kernels.sparse_decode import sparse_decode
from longspan_kernels.step_slots import append_token, zone_runs
from longspan_kernels.types import Partial

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from longspan.models.window import WindowState


class StaticWindow(StaticLayer):
    """The token at position p lies in slot p % slots of its row's ring, where it takes the place of
    the one that no later query sees.
    """

    def __init__(
        self, states: Sequence[WindowState], lengths: Sequence[int], limits: Sequence[int]
    ) -> None:
        """`lengths`: tokens that the rows hold now; none gets more than its limit."""
        self.states, geometry = states, states[0].geometry
        assert states[0].window is not None
        self.geometry, self.slots = geometry, min(states[0].window, max(limits))
        shape = (len(states), geometry.kv_heads, self.slots, geometry.head_size)
        # zeros, not whatever is there: a weight of 0 does not make a NaN harmless
        self.keys_BGCD = torch.zeros(shape, dtype=geometry.dtype, device=geometry.device)
        self.values_BGCD = torch.zeros_like(self.keys_BGCD)
        for row, (state, length) in enumerate(zip(states, lengths, strict=True)):
            k_GTD, v_GTD = state.last(self.slots - 1)
            slots = self._slots(length, k_GTD.shape[1])
            self.keys_BGCD[row, :, slots] = k_GTD
            self.values_BGCD[row, :, slots] = v_GTD

    def step(self, q_BHD: Tensor, k_BGD: Tensor, v_BGD: Tensor, at_B: Tensor) -> Partial:
        """See StaticLayer."""
        keys_NCD, values_NCD = self.keys_BGCD.flatten(0, 1), self.values_BGCD.flatten(0, 1)
        append_token(keys_NCD, values_NCD, k_BGD, v_BGD, at_B % self.slots)
        parts = sparse_decode(
            q_BHD.flatten(0, 1),
            keys_NCD,
            values_NCD,
            zone_runs(at_B.clamp(max=self.slots - 1), len(keys_NCD)),
            scale=self.geometry.scale,
            softcap=self.geometry.softcap,
            expected=self.slots,
            stacked=True,
        )
        out, lse = merge([parts], stacked=True)
        return Partial(out.view(q_BHD.shape), lse.view(q_BHD.shape[:2]))

    def update(self, lengths: Sequence[int], decoding: Sequence[int]) -> None:
        """See StaticLayer: there is no index."""

    def abandon(self) -> None:
        """See StaticLayer."""

    def settle(self, lengths: Sequence[int]) -> None:
        """See StaticLayer. The states get copies."""
        for row, (state, length) in enumerate(zip(self.states, lengths, strict=True)):
            # a row that rests may have put its token in the place of one more
            slots = self._slots(length, min(length, self.slots - 1))
            state.hold(self.keys_BGCD[row, :, slots], self.values_BGCD[row, :, slots])

    def release(self) -> None:
        """See StaticLayer."""

    def _slots(self, length: int, count: int) -> Tensor:
        """Where the last `count` of a row's `length` tokens lie, in order."""
        positions = torch.arange(length - count, length, device=self.keys_BGCD.device)
        return positions % self.slots
