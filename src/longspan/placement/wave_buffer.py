"""Keys and values in host memory, and a cache of the blocks that are read again and again.

RetroInfer (PVLDB 19(5), arXiv 2505.02922), section 4.4. Beyond the paper: frequency-aware policies,
pages shared by the KV heads of a layer, a buffer that grows instead of dropping clusters. Without a
GPU all of it happens in plain memory, to the same result.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import torch

from longspan.placement.base import Placement, Traffic
from longspan.placement.host import HostStore
from longspan.placement.memory import BLOCK, pieces
from longspan.placement.part import Part
from longspan.types import Runs
from longspan_kernels.block_cache import BlockCache
from longspan_kernels.dense_decode import dense_decode
from longspan_kernels.page_gather import page_admit, page_gather
from longspan_kernels.sparse_decode import sparse_decode

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from torch import Tensor

    from longspan.placement.base import Place
    from longspan.types import LayerGeometry, Partial
    from longspan_kernels.block_cache import Found
    from longspan_kernels.types import Pages

CLUSTER_PAGE = 8
"""Vectors a page where blocks are clusters; single tokens take pages of one."""
BUFFER_STEP = 256
"""The buffer's length is a multiple of this."""
GROWTH = 5 / 4
"""The cache grows when the store would allow it so much more."""


class WaveBuffer(Placement):
    """One layer of one sequence. A step looks up, gathers into the buffer and attends it, while the
    table is brought up to date in another thread; then what was missing is copied into the cache.
    """

    def __init__(self, geometry: LayerGeometry, where: Place) -> None:
        self.geometry, self.where = geometry, where
        self.store: HostStore = HostStore(
            geometry.kv_heads, geometry.head_size, geometry.dtype, geometry.device
        )
        self.traffic: Traffic = Traffic()
        self._cache: BlockCache | None = None
        self._pool: tuple[Tensor, Tensor] = self._rows(0)
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
        keys_NED, values_NED = self._buffer(found)
        parts = self.store.slices(*(within or (0, len(self.store))))
        pages = found.pages(self.device)
        cached: tuple[Tensor | None, Tensor | None] = self._pool
        for part in parts:
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
        partial = sparse_decode(
            q_HD,
            keys_NED,
            values_NED,
            found.buffered(self.device),
            scale=self.geometry.scale,
            softcap=self.geometry.softcap,
        )
        page_admit(keys_NED, values_NED, self._wait(), *self._pool)
        return [partial]

    def blocks(self, device: torch.device) -> Iterator[Part]:
        """See Placement."""
        return pieces(self.store, device)

    def fork(self) -> WaveBuffer:
        """Shares the frozen parts; the cache begins empty."""
        twin = WaveBuffer(self.geometry, self.where)
        twin.store = self.store.fork()
        return twin

    @property
    def nbytes(self) -> int:
        """See Placement."""
        own = sum(rows_VD.nbytes for rows_VD in self._pool)
        return self.store.nbytes + own + self.pool_bytes

    def _look_up(self, runs: Runs) -> Found:
        """Find the runs and begin to let in what is missing."""
        cpu = torch.device("cpu")
        size_NK = None if runs.size_NK is None else runs.size_NK.to(cpu)
        asked = Runs(runs.start_NK.to(cpu), size_NK, runs.count_N.to(cpu))
        cache = self._fitted(CLUSTER_PAGE if size_NK is not None else 1)
        found = cache.look_up(asked)
        cache.update(found)
        token_bytes = 2 * self.geometry.head_size * self.geometry.dtype.itemsize
        self.last = Traffic(found.hit_entries, found.miss_entries, found.miss_entries * token_bytes)
        return found

    def _fitted(self, page: int) -> BlockCache:
        """The cache, as large as its share of the frozen slots."""
        entries = self.where.cache_budget * self.store.frozen * self.geometry.kv_heads
        pages = round(entries / page)
        if self._cache is None or self._cache.page != page:
            self._cache = BlockCache(
                pages, page=page, groups=self.geometry.kv_heads, policy=self.where.cache_policy
            )
            self._pool = self._rows(pages * page)
        elif pages > self._cache.pages * GROWTH:
            more = self._rows((pages - self._cache.pages) * page)
            keys_VD, values_VD = self._pool
            self._pool = torch.cat([keys_VD, more[0]]), torch.cat([values_VD, more[1]])
            self._cache.grow(pages)
        return self._cache

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

    def _wait(self) -> Pages:
        """What gets into the cache; closes the accounts of the step."""
        assert self._cache is not None
        assert self.last is not None
        start = time.perf_counter()
        pages = self._cache.wait(self.device)
        self.last.wait_s = time.perf_counter() - start
        self.traffic.add(self.last)
        return pages

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

    def _rows(self, count: int) -> tuple[Tensor, Tensor]:
        shape = (count, self.geometry.head_size)
        keys_VD = torch.empty(shape, dtype=self.geometry.dtype, device=self.device)
        return keys_VD, torch.empty_like(keys_VD)
