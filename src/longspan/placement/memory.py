"""Keys and values in the memory of one device, read where they lie."""

from __future__ import annotations

from typing import TYPE_CHECKING

from longspan.placement.base import Placement
from longspan.placement.store import KVStore, Part
from longspan_kernels.dense_decode import dense_decode
from longspan_kernels.sparse_decode import sparse_decode

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import torch
    from torch import Tensor

    from longspan.types import LayerGeometry, Partial, Runs

BLOCK = 16384
"""Tokens moved at once to another device."""


class Memory(Placement):
    """Everything in the memory of one device; nothing is cached, nothing copied to be attended."""

    def __init__(self, geometry: LayerGeometry, device: torch.device) -> None:
        self.geometry = geometry
        self.store = KVStore(geometry.kv_heads, geometry.head_size, geometry.dtype, device)

    @property
    def device(self) -> torch.device:
        """The store's device."""
        return self.store.device

    def attend_ranges(self, q_HD: Tensor, ranges: Iterable[tuple[int, int]]) -> list[Partial]:
        """One dense attention a range and part."""
        scale, softcap = self.geometry.scale, self.geometry.softcap
        return [
            dense_decode(q_HD, part.keys_GTD, part.values_GTD, scale=scale, softcap=softcap)
            for start, stop in ranges
            for part in self.store.slices(start, stop)
        ]

    def attend_runs(
        self, q_HD: Tensor, runs: Runs, within: tuple[int, int] | None = None
    ) -> list[Partial]:
        """One sparse attention a part."""
        scale, softcap = self.geometry.scale, self.geometry.softcap
        return [
            sparse_decode(
                q_HD,
                part.keys_GTD,
                part.values_GTD,
                runs,
                scale=scale,
                softcap=softcap,
                first=part.first,
            )
            for part in self.store.slices(*(within or (0, len(self.store))))
        ]

    def blocks(self, device: torch.device) -> Iterator[Part]:
        """See Placement."""
        return pieces(self.store, device)

    def fork(self) -> Memory:
        """Shares the frozen parts."""
        twin = Memory(self.geometry, self.device)
        twin.store = self.store.fork()
        return twin


def pieces(store: KVStore, device: torch.device) -> Iterator[Part]:
    """Whole parts where they already lie on `device`, else stretches of BLOCK tokens."""
    for part in store.parts:
        if part.keys_GTD.device == device:
            yield part
            continue
        for first in range(part.first, part.stop, BLOCK):
            for piece in store.slices(first, min(first + BLOCK, part.stop)):
                keys_GTD = piece.keys_GTD.to(device, non_blocking=True)
                values_GTD = piece.values_GTD.to(device, non_blocking=True)
                places_GT = piece.positions_GT
                if places_GT is not None:
                    places_GT = places_GT.to(device, non_blocking=True)
                yield Part(first, keys_GTD, values_GTD, places_GT)
