"""SnapKV in buffers of fixed shape: what is kept of a prompt does not change."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from longspan.methods.frame import Reading
from longspan.methods.static import StaticStored
from longspan_kernels.step_slots import zone_runs
from longspan_kernels.types import Chosen

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from longspan.methods.base import LayerState
    from longspan.methods.snapkv import SnapState
    from longspan.types import Partial


BEHIND = 512
"""About so many tokens behind the prompt are read. Only divides the work."""


class StaticSnap(StaticStored):
    """What is kept, a token a run, and everything behind the prompt."""

    states: Sequence[SnapState]

    def __init__(self, states: Sequence[LayerState], limits: Sequence[int]) -> None:
        super().__init__(states, limits)
        groups, device = self.geometry.kv_heads, self.geometry.device
        chosen = [state.chosen(0) for state in self.states]
        kept = [each.retrieved for each in chosen]
        self.most = max([1, *(each.start_NK.shape[1] for each in kept if each is not None)])
        start_BGK = torch.zeros(len(kept), groups, self.most, dtype=torch.int32, device=device)
        count_BG = torch.zeros_like(start_BGK[..., 0])
        for row, each in enumerate(kept):
            if each is not None:
                start_BGK[row, :, : each.start_NK.shape[1]] = each.start_NK
                count_BG[row] = each.count_N
        stop_B = torch.tensor([each.steady[0][0] for each in chosen], device=device)
        indexed_2B = torch.stack([torch.zeros_like(stop_B), stop_B])
        self.chosen = Chosen(indexed_2B, start_BGK.flatten(0, 1), count_BG.flatten())

    def attend(self, q_XD: Tensor, at_B: Tensor) -> list[Partial]:
        """See StaticStored."""
        runs = zone_runs(at_B, len(self.pool.keys_NCD), self.chosen)
        return [self.pool.attend(q_XD, runs, self.most + BEHIND)]

    def update(self, lengths: Sequence[int], decoding: Sequence[int]) -> None:
        """See StaticLayer."""
        for row in set(decoding) - set(self._decoded):
            self.states[row].answered()
        super().update(lengths, decoding)

    def reading(self, row: int, length: int) -> Reading:
        """See StaticStored."""
        return Reading([], self.states[row].chosen(length))
