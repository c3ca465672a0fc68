"""Keys and values of several rows of a layer in buffers whose shape never changes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from longspan.placement.part import Part

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from longspan.placement.store import KVStore


class Pool:
    """Room for `capacity` tokens of each row, into which the contents of the rows' stores move.

    `append` neither waits for the device nor has a shape that depends on data. The stores do not
    learn of it: `settle` tells them, after which their parts are views of these buffers.
    """

    def __init__(self, stores: Sequence[KVStore], capacity: int) -> None:
        self.stores, first = stores, stores[0].empty_GCD
        rows, (groups, _, size) = len(stores), first.shape
        shape = (rows, groups, capacity, size)
        # zeros, not whatever is there: a weight of 0 does not make a NaN harmless
        self.keys_BGCD = torch.zeros(shape, dtype=first.dtype, device=first.device)
        self.values_BGCD = torch.zeros_like(self.keys_BGCD)
        slots_C = torch.arange(capacity, dtype=torch.int32, device=first.device)
        self.positions_BGC = slots_C.repeat(rows, groups, 1)
        self._row_N = torch.arange(rows * groups, device=first.device)
        for row, store in enumerate(stores):
            self.take(row, 0, len(store))
            self.settle(row, len(store))

    @property
    def keys_NCD(self) -> Tensor:
        """Every KV head of every row."""
        return self.keys_BGCD.flatten(0, 1)

    @property
    def values_NCD(self) -> Tensor:
        """As `keys_NCD`."""
        return self.values_BGCD.flatten(0, 1)

    def spread(self, number_B: Tensor) -> Tensor:
        """A number a row, for every KV head of the row."""
        return number_B[:, None].expand(-1, self.keys_BGCD.shape[1]).reshape(-1)

    def append(self, k_BGD: Tensor, v_BGD: Tensor, at_B: Tensor) -> None:
        """Store a token a row, in slot at_B[b] (int64)."""
        place = (self._row_N, self.spread(at_B))
        self.keys_NCD.index_put_(place, k_BGD.flatten(0, 1).to(self.keys_BGCD.dtype))
        self.values_NCD.index_put_(place, v_BGD.flatten(0, 1).to(self.keys_BGCD.dtype))

    def take(self, row: int, start: int, stop: int) -> None:
        """Copy what a row's store holds in the slots [start, stop)."""
        for part in self.stores[row].slices(start, stop):
            into = slice(part.first, part.stop)
            self.keys_BGCD[row, :, into] = part.keys_GTD
            self.values_BGCD[row, :, into] = part.values_GTD
            self.positions_BGC[row, :, into] = part.places_GT

    def settle(self, row: int, length: int) -> None:
        """Let the row's store hold the row's first `length` slots, where they lie."""
        store = self.stores[row]
        frozen = store.frozen
        part = Part(
            0,
            self.keys_BGCD[row, :, :frozen],
            self.values_BGCD[row, :, :frozen],
            self.positions_BGC[row, :, :frozen],
        )
        tail = self.keys_BGCD[row, :, frozen:], self.values_BGCD[row, :, frozen:]
        store.lie_in(part, *tail, length - frozen)
