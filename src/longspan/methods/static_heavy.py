"""H2O in buffers of fixed shape: heavy hitters, and what keeps them so."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch

from longspan.methods.frame import Reading
from longspan.methods.static import StaticStored
from longspan.methods.static_received import StaticReceived, keys_in
from longspan.tensors import spread
from longspan.types import Runs, Selection
from longspan_kernels.step_slots import zone_runs
from longspan_kernels.types import Chosen

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from longspan.methods.base import LayerState
    from longspan.methods.h2o import H2OState
    from longspan.types import Partial


class StaticHeavy(StaticStored):
    """Rows that hold no more than they read are attended in full until they do. A heavy hitter that
    a step evicts is one until the next step of the row begins; see StaticReceived.
    """

    _last: tuple[Tensor, Tensor]
    """As `_last_tokens` gives them, of the step that is taken."""

    def __init__(self, states: Sequence[LayerState], limits: Sequence[int]) -> None:
        super().__init__(states, limits)
        self.rows = cast("Sequence[H2OState]", states)
        self.mean = self.rows[0].method.score == "mean"
        # with room for more than the buffers hold, nothing is evicted from them
        rooms = [min(cast("int", state.room), self.capacity) for state in self.rows]
        groups, device = self.geometry.kv_heads, self.geometry.device
        self.room_N1 = spread(torch.tensor(rooms, device=device), groups)[:, None]
        self.heavy_N1 = self.room_N1 // 2
        most = max(rooms) // 2
        self.recent = max(rooms) - most
        """Last tokens that a row reads, once it evicts; until then it reads no more than `room`."""
        if any(len(state.store) < room for state, room in zip(self.rows, rooms, strict=True)):
            self.recent = max(rooms)
        # a row that has none yet begins with its first tokens
        self.slot_NK = torch.arange(most, device=device).repeat(len(self.room_N1), 1)
        for row, state in enumerate(self.rows):
            if state.heavy_GK is not None:
                heads = slice(row * groups, (row + 1) * groups)
                self.slot_NK[heads, : state.heavy_GK.shape[1]] = state.heavy_GK
        self.next_NK = self.slot_NK.clone()
        """After the step."""
        self.usual = max(rooms)
        self.received = StaticReceived(self.geometry, len(rooms), self.capacity, most + self.recent)
        for row, state in enumerate(self.rows):
            self.received.take(row, state.received, len(state.store))

    def attend(self, q_XD: Tensor, at_B: Tensor) -> list[Partial]:
        """See StaticStored. A token leaves the last ones, and one is evicted."""
        self.slot_NK.copy_(torch.where(self.received.begin(at_B), self.next_NK, self.slot_NK))
        at_N1, from_N1 = self._last = self._last_tokens(at_B)
        self.next_NK.copy_(self._kept(at_N1, from_N1))
        count_N = torch.where(from_N1 > 0, self.heavy_N1, 0)[:, 0]
        from_B = from_N1[:: self.geometry.kv_heads, 0]
        indexed_2B = torch.stack([torch.zeros_like(from_B), from_B])
        chosen = Chosen(indexed_2B, self.next_NK.int(), count_N.int())
        return [self.pool.attend(q_XD, zone_runs(at_B, len(count_N), chosen), self.usual)]

    def attended(self, q_XD: Tensor, lse_X: Tensor, at_B: Tensor) -> None:
        """See StaticStored. What was read receives what it was given."""
        at_N1, from_N1 = self._last
        recent_NM = from_N1 + torch.arange(self.recent, device=at_B.device)
        place_K = torch.arange(self.next_NK.shape[1], device=at_B.device)
        live_NK = (from_N1 > 0) & (place_K < self.heavy_N1)
        slot_NM = torch.cat([self.next_NK, recent_NM], 1)
        live_NM = torch.cat([live_NK, recent_NM <= at_N1], 1)
        keys_NMD = keys_in(self.pool.keys_NCD, slot_NM)
        self.received.note(q_XD, lse_X, keys_NMD, slot_NM, live_NM)
        self.received.end(at_B)

    def settle(self, lengths: Sequence[int]) -> None:
        """See StaticLayer."""
        super().settle(lengths)
        for row, (state, length) in enumerate(zip(self.rows, lengths, strict=True)):
            pending = self.received.give(row, state.received, length)
            if self._evicts(state, length):
                state.heavy_GK = self._of(row, self.next_NK if pending else self.slot_NK).clone()

    def reading(self, row: int, length: int) -> Reading:
        """See StaticStored."""
        state = self.rows[row]
        if not self._evicts(state, length):
            return super().reading(row, length)
        slot_GK = self._of(row, self.next_NK).int()
        runs = Runs(slot_GK, None, torch.full_like(slot_GK[:, 0], slot_GK.shape[1]))
        return Reading([], Selection(((state.recent_from(length), length),), runs))

    def _evicts(self, state: H2OState, length: int) -> bool:
        return length > cast("int", state.room)

    def _of(self, row: int, slot_NK: Tensor) -> Tensor:
        groups, heavy = self.geometry.kv_heads, cast("int", self.rows[row].room) // 2
        return slot_NK[row * groups : (row + 1) * groups, :heavy]

    def _last_tokens(self, at_B: Tensor) -> tuple[Tensor, Tensor]:
        """int64 [N, 1]: the last token of a row, and the first of its last ones; 0 where it reads
        all.
        """
        at_N1 = spread(at_B, self.geometry.kv_heads)[:, None]
        from_N1 = at_N1 + 1 - (self.room_N1 - self.heavy_N1)
        return at_N1, torch.where(at_N1 >= self.room_N1, from_N1, 0)

    def _kept(self, at_N1: Tensor, from_N1: Tensor) -> Tensor:
        """The heavy hitters of the step; see H2OState."""
        place_K = torch.arange(self.slot_NK.shape[1] + 1, device=at_N1.device)
        rival_NK = torch.cat([self.slot_NK, self.slot_NK[:, :1]], 1)
        rival_NK = torch.where(place_K == self.heavy_N1, from_N1 - 1, rival_NK).clamp(min=0)
        score_NK = self.received.sum_NC.gather(1, rival_NK)
        if self.mean:
            score_NK = score_NK / (at_N1 - rival_NK)
        score_NK = torch.where(place_K > self.heavy_N1, torch.inf, score_NK)
        least_N1 = score_NK.argmin(1, keepdim=True)
        kept_NK = rival_NK.gather(1, place_K[:-1] + (place_K[:-1] >= least_N1))
        return torch.where(from_N1 > 0, kept_NK, self.slot_NK)
