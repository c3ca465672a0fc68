"""Layers in buffers of fixed shape: everything stored, attended in one launch for all rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch

from longspan.methods.base import StaticLayer
from longspan.methods.frame import Reading
from longspan.placement.pool import Pool
from longspan.types import Partial, Runs, Selection
from longspan_kernels.sparse_decode import sparse_decode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from longspan.methods.base import LayerState
    from longspan.methods.frame import StoredState
    from longspan.placement.base import PlacementName


def elsewhere(placement: PlacementName, device: torch.device) -> str | None:
    """Why keys and values so placed cannot be read by a step that only the device knows of."""
    if placement == "gpu" or (placement == "cpu" and device.type == "cpu"):
        return None
    return f"method.placement = {placement!r} reads host memory; right would be gpu"


class StaticStored(StaticLayer):
    """Full attention. The KV heads of all rows are the KV heads of one call."""

    def __init__(self, states: Sequence[LayerState], capacity: int) -> None:
        # a method is given the states that it made
        self.states = cast("Sequence[StoredState]", states)
        self.geometry, self.capacity = self.states[0].geometry, capacity
        self.pool = Pool([state.store for state in self.states], capacity)

    def step(self, q_BHD: Tensor, k_BGD: Tensor, v_BGD: Tensor, at_B: Tensor) -> Partial:
        """See StaticLayer."""
        self.pool.append(k_BGD, v_BGD, at_B)
        out, lse = self.attend(q_BHD.flatten(0, 1), self.pool.spread(at_B + 1).int())
        return Partial(out.view(q_BHD.shape), lse.view(q_BHD.shape[:2]))

    def attend(self, q_XD: Tensor, length_N: Tensor) -> Partial:
        """The query heads of all rows over the first `length_N` (int32) slots of each KV head."""
        start_N1 = torch.zeros_like(length_N)[:, None]
        runs = Runs(start_N1, length_N[:, None], torch.ones_like(length_N))
        return self.read(q_XD, runs, self.capacity)

    def read(self, q_XD: Tensor, runs: Runs, expected: int) -> Partial:
        """Exact attention to the slots that `runs` names."""
        return sparse_decode(
            q_XD,
            self.pool.keys_NCD,
            self.pool.values_NCD,
            runs,
            scale=self.geometry.scale,
            softcap=self.geometry.softcap,
            expected=expected,
        )

    def update(self, lengths: Sequence[int]) -> None:
        """See StaticLayer: nothing."""

    def settle(self, lengths: Sequence[int]) -> None:
        """See StaticLayer."""
        for row, (state, length) in enumerate(zip(self.states, lengths, strict=True)):
            self.pool.settle(row, length)
            state.tell(self.reading(row, length))

    def reading(self, row: int, length: int) -> Reading:
        """What the last step did for a row that now holds `length` tokens."""
        return Reading([], Selection(((0, length),)))
