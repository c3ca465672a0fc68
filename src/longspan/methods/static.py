"""Layers in buffers of fixed shape: everything stored, attended in one launch for all rows."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, cast

from longspan.methods.base import StaticLayer
from longspan.methods.frame import Reading
from longspan.placement.pool import Pool
from longspan.types import Partial, Runs, Selection
from longspan_kernels.merge import merge
from longspan_kernels.step_slots import zone_runs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from longspan.methods.base import LayerState
    from longspan.methods.frame import StoredState
    from longspan.placement.base import PlacementName
    from longspan.types import LayerGeometry


def elsewhere(
    placement: PlacementName, geometry: LayerGeometry, dense_layers: Sequence[int] = ()
) -> str | None:
    """Why keys and values so placed cannot be read by a step that only the device knows of."""
    if placement == "wave_buffer" and geometry.layer in dense_layers:
        return f"layer {geometry.layer} reads all of host memory (method.dense_layers)"
    if placement != "cpu" or geometry.device.type == "cpu":
        return None
    return f"method.placement = {placement!r} reads host memory; right would be gpu"


class StaticStored(StaticLayer):
    """Full attention. The KV heads of all rows are the KV heads of one call."""

    def __init__(self, states: Sequence[LayerState], limits: Sequence[int]) -> None:
        # a method is given the states that it made
        self.states = cast("Sequence[StoredState]", states)
        self.geometry, self.capacity = self.states[0].geometry, max(limits)
        for state in self.states:
            state.tell(None)  # what it says of a step before may hold the buffers of that
        self._decoded: Sequence[int] = ()
        self.pool = self.pooled(limits)

    def pooled(self, limits: Sequence[int]) -> Pool:
        """The rows' keys and values."""
        return Pool(self.geometry, [state.store for state in self.states], limits)

    def step(self, q_BHD: Tensor, k_BGD: Tensor, v_BGD: Tensor, at_B: Tensor) -> Partial:
        """See StaticLayer."""
        self.pool.append(k_BGD, v_BGD, at_B)
        q_XD = q_BHD.flatten(0, 1)
        out, lse = merge(self.attend(q_XD, at_B), stacked=True)
        self.attended(q_XD, lse, at_B)
        return Partial(out.view(q_BHD.shape), lse.view(q_BHD.shape[:2]))

    def attend(self, q_XD: Tensor, at_B: Tensor) -> list[Partial]:
        """The query heads of all rows, the last token of which lies in slot at_B[b]; parts still to
        be merged, over a first axis.
        """
        runs = zone_runs(at_B, len(self.pool.keys_NCD))
        return [self.pool.attend(q_XD, runs, self.capacity)]

    def attended(self, q_XD: Tensor, lse_X: Tensor, at_B: Tensor) -> None:
        """What `attend` read weighs as much, all parts together."""

    def update(self, lengths: Sequence[int], decoding: Sequence[int]) -> None:
        """See StaticLayer. Rows that rest from here on keep what their last step did."""
        for row in set(self._decoded) - set(decoding):
            self.states[row].tell(kept(self.reading(row, lengths[row])))
        self._decoded = decoding
        self.absorb(lengths, decoding)
        self.pool.begin(decoding)

    def absorb(self, lengths: Sequence[int], decoding: Sequence[int]) -> None:
        """Let the indexes of the rows that decode take in what waits for them. What those of rows
        that rest take in next, a further turn may say.
        """

    def abandon(self) -> None:
        """See StaticLayer."""
        self._decoded = ()
        self.pool.abandon()

    def settle(self, lengths: Sequence[int]) -> None:
        """See StaticLayer."""
        self.pool.wait()
        for row, (state, length) in enumerate(zip(self.states, lengths, strict=True)):
            self.pool.settle(row, length)
            if row in self._decoded:
                state.tell(self.reading(row, length))

    def release(self) -> None:
        """See StaticLayer."""
        for row in range(len(self.states)):
            self.pool.release(row)

    def reading(self, row: int, length: int) -> Reading:
        """What the last step did for a row that now holds `length` tokens."""
        return Reading([], Selection(((0, length),)))


def kept(reading: Reading) -> Reading:
    """What was read, in tensors that no further step overwrites."""
    retrieved, estimated = reading.selection.retrieved, reading.selection.estimated
    if retrieved is not None:
        retrieved = _own(retrieved)
    if estimated is not None:
        bias_GC, tokens_GC = estimated.bias_GC.clone(), estimated.tokens_GC.clone()
        ids = _own(estimated.ids)
        estimated = replace(estimated, bias_GC=bias_GC, ids=ids, tokens_GC=tokens_GC)
    selection = replace(reading.selection, retrieved=retrieved, estimated=estimated)
    return replace(reading, selection=selection)


def _own(runs: Runs) -> Runs:
    size_NK = None if runs.size_NK is None else runs.size_NK.clone()
    return Runs(runs.start_NK.clone(), size_NK, runs.count_N.clone())
