"""Keys and values in host memory, and a cache of the blocks that are read again and again.

RetroInfer (PVLDB 19(5), arXiv 2505.02922), section 4.4. Beyond the paper: frequency-aware policies,
pages shared by all layers and KV heads, a cache that begins with what the prompt's last query asks
for, a buffer that grows instead of dropping clusters. Without a GPU all of it happens in plain
memory, to the same result.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import torch

from longspan.placement.base import Placement, Traffic
from longspan.placement.host import HostStore
from longspan.placement.memory import BLOCK, pieces
from longspan.placement.part import Part
from longspan.placement.shared_cache import CLUSTER_PAGE, SharedCache
from longspan.types import Runs
from longspan_kernels.dense_decode import dense_decode
from longspan_kernels.page_gather import page_admit, page_gather
from longspan_kernels.sparse_decode import sparse_decode

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from torch import Tensor

    from longspan.placement.base import Place
    from longspan.types import LayerGeometry, Partial
    from longspan_kernels.block_cache import Found

BUFFER_STEP = 256
"""The buffer's length is a multiple of this."""


class WaveBuffer(Placement):
    """One layer of one sequence. A step looks up, gathers into the buffer and attends it, while the
    table is brought up to date in another thread; then what was missing is copied into the cache.
    """

    def __init__(
        self, geometry: LayerGeometry, where: Place, store: HostStore | None = None
    ) -> None:
        self.geometry, self.where = geometry, where
        self.store: HostStore = (
            store
            if store is not None
            else HostStore(geometry.kv_heads, geometry.head_size, geometry.dtype, geometry.device)
        )
        self.traffic: Traffic = Traffic()
        self._share(SharedCache(geometry, where))
        self._near: dict[tuple[int, int, int], Part] = {}
        self._length = 0
        self.pool_bytes = 0
        """Of a cache that is not this one's own, while steps of fixed shape have one."""

    @property
    def device(self) -> torch.device:
        """The model's."""
        return self.geometry.device

    def attend_ranges(self, q_HD: Tensor, ranges: Iterable[tuple[int, int]]) -> list[Partial]:
        """See Placement. What lies in host memory is copied to the device once, if it is short."""
        scale, softcap = self.geometry.scale, self.geometry.softcap
        return [
            dense_decode(q_HD, part.keys_GTD, part.values_GTD, scale=scale, softcap=softcap)
            for start, stop in ranges
            for first in range(start, stop, BLOCK)
            for part in self._brought(first, min(first + BLOCK, stop))
        ]

    def attend_runs(
        self, q_HD: Tensor, runs: Runs, within: tuple[int, int] | None = None
    ) -> list[Partial]:
        """See Placement."""
        found = self._look_up(runs)
        keys_NED, values_NED = self._gathered(found, within)
        partial = sparse_decode(
            q_HD,
            keys_NED,
            values_NED,
            found.buffered(self.device),
            scale=self.geometry.scale,
            softcap=self.geometry.softcap,
        )
        self.traffic.add(self._let_in(keys_NED, values_NED))
        return [partial]

    def prefetch(self, runs: Runs, within: tuple[int, int]) -> None:
        """See Placement. The cache lets in what it would of a step."""
        keys_NED, values_NED = self._gathered(self._look_up(runs), within)
        self.traffic.prefetch_bytes += self._let_in(keys_NED, values_NED).bus_bytes
        self.last, self._length = None, 0

    def blocks(self, device: torch.device) -> Iterator[Part]:
        """See Placement."""
        return pieces(self.store, device)

    def fork(self) -> WaveBuffer:
        """Shares the frozen parts; the cache begins empty."""
        return WaveBuffer(self.geometry, self.where, self.store.fork())

    def join(self, below: Placement) -> None:
        """See Placement. Layers share a cache on one device, if their heads are alike."""
        if isinstance(below, WaveBuffer) and self._heads == below._heads:
            self._share(below.cache)

    def _share(self, cache: SharedCache) -> None:
        self.cache, self.layer = cache, cache.join(self.store)
        """Which of those that share it this layer is."""

    @property
    def _heads(self) -> tuple[object, ...]:
        shape = self.geometry
        return shape.device, shape.dtype, shape.kv_heads, shape.head_size, self.where

    @property
    def nbytes(self) -> int:
        """See Placement."""
        return self.store.nbytes + self.cache.nbytes // self.cache.layers + self.pool_bytes

    def _look_up(self, runs: Runs) -> Found:
        """Find the runs and begin to let in what is missing."""
        cpu = torch.device("cpu")
        size_NK = None if runs.size_NK is None else runs.size_NK.to(cpu)
        asked = Runs(runs.start_NK.to(cpu), size_NK, runs.count_N.to(cpu))
        cache = self.cache.fitted(CLUSTER_PAGE if size_NK is not None else 1)
        found = cache.look_up(asked, self.layer)
        cache.update(found)
        crossed = found.miss_entries * self.geometry.entry_bytes
        self.last = Traffic(found.hit_entries, found.miss_entries, crossed)
        return found

    def _buffer(self, found: Found) -> tuple[Tensor, Tensor]:
        """Room for all that was found, counted where it is more than ever before."""
        if found.length > self._length:
            assert self.last is not None
            self.last.overflows = int(self._length > 0)
            self._length = -(-found.length // BUFFER_STEP) * BUFFER_STEP
        rows = len(found.runs.count_N)
        shape = (rows, self._length, self.geometry.head_size)
        # zeros, not whatever is there: a weight of 0 does not make a NaN harmless
        keys_NED = torch.zeros(shape, dtype=self.geometry.dtype, device=self.device)
        return keys_NED, torch.zeros_like(keys_NED)

    def _gathered(self, found: Found, within: tuple[int, int] | None) -> tuple[Tensor, Tensor]:
        """All that was found, in a buffer."""
        keys_NED, values_NED = self._buffer(found)
        pages = found.pages(self.device)
        cached: tuple[Tensor | None, Tensor | None] = self.cache.pool
        for part in self.store.slices(*(within or (0, len(self.store)))):
            page_gather(
                part.keys_GTD,
                part.values_GTD,
                cached[0],
                cached[1],
                pages,
                keys_NED,
                values_NED,
                first=part.first,
            )
            cached = None, None
        return keys_NED, values_NED

    def _let_in(self, keys_NED: Tensor, values_NED: Tensor) -> Traffic:
        """Copy into the cache what it lets in of the buffer. What all of it cost."""
        assert self.last is not None
        start = time.perf_counter()
        pages = self.cache.wait()
        self.last.wait_s = time.perf_counter() - start
        page_admit(keys_NED, values_NED, pages, *self.cache.pool)
        return self.last

    def _brought(self, start: int, stop: int) -> Iterator[Part]:
        """The slots on the device; short stretches of frozen parts stay there."""
        for part in self.store.slices(start, stop):
            if part.keys_GTD.device == self.device:
                yield part
                continue
            key = (part.first, part.stop, self.store.frozen)
            near = self._near.get(key)
            if near is None:
                keys_GTD = part.keys_GTD.to(self.device, non_blocking=True)
                values_GTD = part.values_GTD.to(self.device, non_blocking=True)
                near = Part(part.first, keys_GTD, values_GTD)
                if part.stop - part.first < BLOCK:
                    self._near = {key: near}
            yield near
