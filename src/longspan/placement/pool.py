"""Keys and values of several rows of a layer in buffers whose shape never changes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from longspan.placement.part import Part
from longspan_kernels.sparse_decode import sparse_decode
from longspan_kernels.step_slots import append_token

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from longspan.placement.store import KVStore
    from longspan.types import LayerGeometry, Partial, Runs


class Pool:
    """Room for `limits[b]` tokens of each row, into which the contents of the rows' stores move.

    `append` and `attend` neither wait for the device nor have a shape that depends on data. The
    stores do not learn of it: `settle` tells them, after which their parts are views of these
    buffers. `gaps`: slots [low, high) of each row, at the end of its frozen slots, that stay where
    they are; the buffers leave them out.
    """

    def __init__(
        self,
        geometry: LayerGeometry,
        stores: Sequence[KVStore],
        limits: Sequence[int],
        gaps: Sequence[tuple[int, int]] | None = None,
    ) -> None:
        self.geometry, self.stores = geometry, stores
        self.gaps = gaps or [(0, 0)] * len(stores)
        self._homes = [store.parts_before(high) for store, (_, high) in self._rows()]
        self._missing = [high - low for low, high in self.gaps]
        rows, groups = len(stores), geometry.kv_heads
        self.capacity = max(map(int.__sub__, limits, self._missing))
        shape, device = (rows, groups, self.capacity, geometry.head_size), geometry.device
        # zeros, not whatever is there: a weight of 0 does not make a NaN harmless
        self.keys_BGCD = torch.zeros(shape, dtype=geometry.dtype, device=device)
        self.values_BGCD = torch.zeros_like(self.keys_BGCD)
        slots_C = torch.arange(self.capacity, dtype=torch.int32, device=device)
        self.positions_BGC = slots_C.repeat(rows, groups, 1)
        for row, (store, (low, high)) in enumerate(self._rows()):
            self.positions_BGC[row, :, low:] += high - low
            self.take(row, 0, low)
            self.take(row, high, len(store))
            self.settle(row, len(store))

    @property
    def keys_NCD(self) -> Tensor:
        """Every KV head of every row."""
        return self.keys_BGCD.flatten(0, 1)

    @property
    def values_NCD(self) -> Tensor:
        """As `keys_NCD`."""
        return self.values_BGCD.flatten(0, 1)

    def append(self, k_BGD: Tensor, v_BGD: Tensor, at_B: Tensor) -> None:
        """Store a token a row, in slot at_B[b] (int64)."""
        append_token(self.keys_NCD, self.values_NCD, k_BGD, v_BGD, at_B)

    def attend(self, q_XD: Tensor, runs: Runs, expected: int) -> Partial:
        """Exact attention of the query heads of all rows to the slots that `runs` names, about so
        many a head; parts still to be merged, over a first axis.
        """
        return self.attend_near(q_XD, runs, expected)

    def attend_near(self, q_XD: Tensor, runs: Runs, expected: int) -> Partial:
        """As `attend`, of runs none of which is in a gap."""
        return sparse_decode(
            q_XD,
            self.keys_NCD,
            self.values_NCD,
            runs,
            scale=self.geometry.scale,
            softcap=self.geometry.softcap,
            expected=expected,
            stacked=True,
        )

    def near(self, slot_NK: Tensor) -> Tensor:
        """Where slots of each KV head, none of which is in a gap, lie in the buffers."""
        return slot_NK

    def begin(self, decoding: Sequence[int]) -> None:
        """Before a step of these rows, outside of it."""

    def abandon(self) -> None:
        """The step that was begun did not come to its end."""

    def wait(self) -> None:
        """Have done what the last step left to be done."""

    def take(self, row: int, start: int, stop: int) -> None:
        """Copy what a row's store holds in the slots [start, stop), none of them in the gap."""
        low, _ = self.gaps[row]
        for part in self.stores[row].slices(start, stop):
            first = part.first if part.first < low else part.first - self._missing[row]
            into = slice(first, first + part.keys_GTD.shape[1])
            self.keys_BGCD[row, :, into] = part.keys_GTD
            self.values_BGCD[row, :, into] = part.values_GTD
            self.positions_BGC[row, :, into] = part.places_GT

    def settle(self, row: int, length: int) -> None:
        """Let the row's store hold the row's first `length` slots, where they lie."""
        store, homes = self.stores[row], self._homes[row]
        frozen = store.frozen
        here = (self._here(row, part) for part in store.parts_before(frozen)[len(homes) :])
        tail = slice(frozen - self._missing[row], None)
        tensors = self.keys_BGCD[row, :, tail], self.values_BGCD[row, :, tail]
        store.lie_in((*homes, *here), *tensors, length - frozen)

    def _here(self, row: int, part: Part) -> Part:
        """The part's slots as they lie in the buffers; in order where they were."""
        here = slice(part.first - self._missing[row], part.stop - self._missing[row])
        moved = part.positions_GT is not None
        return Part(
            part.first,
            self.keys_BGCD[row, :, here],
            self.values_BGCD[row, :, here],
            self.positions_BGC[row, :, here] if moved else None,
        )

    def release(self, row: int) -> None:
        """The row goes on without these buffers; its store has been settled."""

    def _rows(self) -> Sequence[tuple[KVStore, tuple[int, int]]]:
        return list(zip(self.stores, self.gaps, strict=True))
