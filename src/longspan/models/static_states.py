"""Rows whose states decode, one layer after the other, between the graphs of a step."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch

from longspan.methods.base import LayerState, StaticLayer
from longspan_kernels.types import Partial

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from longspan.methods.base import Method
    from longspan.models.pieces import Between


class StaticStates(StaticLayer):
    """What no graph holds: a search on a CPU, keys and values in host memory, what waits for the
    device. Only the model around it is of fixed shape. The states are where the steps are, and a
    step that did not come to its end leaves them between two tokens.
    """

    def __init__(self, method: Method, states: Sequence[LayerState], between: Between) -> None:
        self.method, self.states, self.between = method, states, between
        # an index may be yet to come; dense layers have none
        self.expects = method.guesses and type(states[0]).expects is not LayerState.expects
        self._guess_BHD: Tensor | None = None
        self._decoding: Sequence[int] = ()

    def expect(self, q_BHD: Tensor) -> None:
        """See StaticLayer."""
        self._guess_BHD = q_BHD

    def prefetch(self) -> None:
        """See LayerState."""
        for state in self.states:
            state.prefetch()

    def step(self, q_BHD: Tensor, k_BGD: Tensor, v_BGD: Tensor, at_B: Tensor) -> Partial:
        """See StaticLayer. Rows that rest are not looked at: theirs are zeros."""
        out_BHD = torch.zeros_like(q_BHD, dtype=torch.float32)
        total = Partial(out_BHD, out_BHD.new_zeros(q_BHD.shape[:2]))
        given = (q_BHD, k_BGD, v_BGD), self._guess_BHD
        self.between(partial(self._decode, *given, total))
        self._guess_BHD = None
        return total

    def _decode(self, new: Sequence[Tensor], guess_BHD: Tensor | None, total: Partial) -> None:
        rows = list(self._decoding)
        states = [self.states[row] for row in rows]
        # copies: the next step writes where this one does, and states may keep what they are given
        q_BHD, k_BGD, v_BGD = (torch.stack([each[row] for row in rows]) for each in new)
        for row, state, k_GD, v_GD in zip(rows, states, k_BGD, v_BGD, strict=True):
            if guess_BHD is not None and state.expects:
                state.expect(guess_BHD[row])
            state.append(k_GD, v_GD)
        found = self.method.decode(states, q_BHD)
        for row, out_HD, lse_H in zip(rows, found.out, found.lse, strict=True):
            total.out[row].copy_(out_HD)
            total.lse[row].copy_(lse_H)

    def update(self, lengths: Sequence[int], decoding: Sequence[int]) -> None:
        """See StaticLayer."""
        self._decoding = decoding

    def abandon(self) -> None:
        """See StaticLayer."""

    def settle(self, lengths: Sequence[int]) -> None:
        """See StaticLayer."""

    def release(self) -> None:
        """See StaticLayer."""
