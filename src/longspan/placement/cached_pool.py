"""A wave buffer in buffers whose shape never changes: what a prompt left in host memory stays
there, what came after it lies near, and steps find out by themselves what is cached.

A step attends every slot where it is (its own look-up on the device, no buffer to gather in), says
what it read, and copies what the step before it let in. The caches' policy works on the CPU beside
the steps: the next one waits for what of this is left.
"""

from __future__ import annotations

import time
import weakref
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from longspan.placement.base import Traffic
from longspan.placement.pool import Pool
from longspan.placement.shared_cache import CLUSTER_PAGE, StepPages
from longspan.tensors import wait_for_devices
from longspan.types import Runs
from longspan_kernels.block_cache import CacheSteps, packed
from longspan_kernels.cached_decode import CachedStore, admit_pages, cached_decode
from longspan_kernels.step_slots import append_token

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from longspan.placement.wave_buffer import WaveBuffer
    from longspan.types import LayerGeometry, Partial

PAGES_A_RUN = 2
"""A step lets in at most so many pages for each run that it is meant to read; others have another
chance."""


class CachedPool(Pool):
    """The rows' placements keep their stores; what is frozen when the pool is made is at home."""

    def __init__(
        self,
        geometry: LayerGeometry,
        placements: Sequence[WaveBuffer],
        limits: Sequence[int],
        *,
        sink_tokens: int,
        width: int,
        usual: int,
        single: bool = False,
    ) -> None:
        """`sink_tokens`: at the start of every row, read at every step. `width`, `usual`:
        the most runs that a step reads a KV head, and how many it is meant to. `single`: each run
        is a token, and so is a page of the cache.
        """
        self.placements = placements
        stores = [placement.store for placement in placements]
        gaps = [(min(sink_tokens, store.frozen), store.frozen) for store in stores]
        super().__init__(geometry, stores, limits, gaps)
        device, layer = geometry.device, placements[0].layer
        caches, page = [each.cache for each in placements], 1 if single else CLUSTER_PAGE
        self.shared = StepPages.of(caches, layer, sink_tokens, page)
        gap_2B = torch.tensor(gaps, device=device).T
        self._skipped_B = gap_2B[1] - gap_2B[0]
        self._gap_2N = gap_2B.repeat_interleave(geometry.kv_heads, 1).int()
        self.cached = CachedStore.of(
            self._homes,
            self.keys_NCD,
            self.values_NCD,
            self._gap_2N,
            self.shared.pool,
            layer,
        )
        self.steps = CacheSteps(
            self.shared.tables,
            layer,
            width=width,
            most=min(max(self.shared.pages), min(page, PAGES_A_RUN) * geometry.kv_heads * usual),
            device=device,
        )
        self._decoding: Sequence[int] = ()
        if device.type == "cuda":  # a step in flight reads and writes lists in host memory
            weakref.finalize(self, wait_for_devices)
        for row, placement in enumerate(placements):
            table = self.cached.row_of_NT.nbytes // len(placements)
            placement.pool_bytes = self.shared.nbytes(row) + table
            placement.store.held = True

    def prefetch(self, runs: Sequence[Runs | None]) -> None:
        """Let in what the rows are likely to read first, each as its index would say it; a layer
        after the other, before the first step.
        """
        asked = _side_by_side(runs, self.geometry.kv_heads)
        assert asked.size_NK is not None
        page = self.shared.pool.page
        steps = CacheSteps(
            self.shared.tables,
            self.cached.layer,
            width=asked.size_NK.shape[1],
            most=int((asked.size_NK + page - 1).div(page, rounding_mode="floor").sum()),
            device=self.geometry.device,
        )
        steps.begin()
        steps.say(packed(asked.start_NK, asked.size_NK, asked.count_N))
        for placement, count in zip(self.placements, steps.wait(), strict=True):
            placement.traffic.prefetch_bytes += count.admitted_entries * self.geometry.entry_bytes
        admit_pages(self.cached, steps.admitted_BA4, steps.count_B)
        wait_for_devices()  # the lists go now

    def append(self, k_BGD: Tensor, v_BGD: Tensor, at_B: Tensor) -> None:
        """See Pool."""
        near = self.keys_NCD, self.values_NCD
        append_token(*near, k_BGD, v_BGD, at_B, skipped_B=self._skipped_B)

    def attend(self, q_XD: Tensor, runs: Runs, expected: int) -> Partial:
        """See Pool. Runs at home are blocks that go into the cache as a whole."""
        admit_pages(self.cached, self.steps.admitted_BA4, self.steps.count_B)
        found = cached_decode(
            q_XD,
            self.cached,
            runs,
            scale=self.geometry.scale,
            softcap=self.geometry.softcap,
            expected=expected,
            stacked=True,
        )
        assert runs.size_NK is not None
        low_N1, high_N1 = self._gap_2N[..., None]
        home_NK = (runs.start_NK >= low_N1) & (runs.start_NK < high_N1)
        self.steps.say(packed(runs.start_NK, torch.where(home_NK, runs.size_NK, 0), runs.count_N))
        return found

    def attend_near(self, q_XD: Tensor, runs: Runs, expected: int) -> Partial:
        """See Pool."""
        moved = Runs(self.near(runs.start_NK), runs.size_NK, runs.count_N)
        return super().attend_near(q_XD, moved, expected)

    def near(self, slot_NK: Tensor) -> Tensor:
        """See Pool."""
        low_N1, high_N1 = self._gap_2N[..., None]
        return torch.where(slot_NK >= high_N1, slot_NK - (high_N1 - low_N1), slot_NK)

    def begin(self, decoding: Sequence[int]) -> None:
        """See Pool."""
        self.wait()
        self._decoding = decoding
        self.steps.begin()

    def abandon(self) -> None:
        """See Pool. What a GPU still has to say is said before the next step begins."""
        wait_for_devices()
        with suppress(RuntimeError):
            self.steps.wait(0.0)

    def wait(self) -> None:
        """See Pool: closes the accounts of the last step."""
        start = time.perf_counter()
        counts = self.steps.wait()
        waited = (time.perf_counter() - start) / max(1, len(self._decoding))
        for row, count in enumerate(counts):
            if row not in self._decoding:
                continue  # what it reads while it rests is nobody's
            placement = self.placements[row]
            crossed = (count.miss_entries + count.admitted_entries) * self.geometry.entry_bytes
            placement.last = Traffic(count.hit_entries, count.miss_entries, crossed, waited)
            placement.traffic.add(placement.last)

    def release(self, row: int) -> None:
        """See Pool: the buffers are let go, and what was frozen in them goes home."""
        store, homes = self.placements[row].store, self._homes[row]
        near = store.parts_before(store.frozen)[len(homes) :]
        moved = tuple(
            replace(
                part,
                keys_GTD=part.keys_GTD.clone(),
                values_GTD=part.values_GTD.clone(),
                positions_GT=None if part.positions_GT is None else part.positions_GT.clone(),
            )
            for part in near
        )
        keys_GTD, values_GTD = (rows_GTD.clone() for rows_GTD in store.tail)
        store.lie_in((*homes, *moved), keys_GTD, values_GTD, keys_GTD.shape[1])
        store.held = False
        store.compact()
        self.placements[row].pool_bytes = 0


def _side_by_side(runs: Sequence[Runs | None], heads: int) -> Runs:
    """What rows of so many KV heads read, as one, on the CPU."""
    width = max([1, *(each.start_NK.shape[1] for each in runs if each is not None)])
    both_2NK = torch.zeros(2, len(runs) * heads, width, dtype=torch.int32)
    count_N = torch.zeros(len(runs) * heads, dtype=torch.int32)
    for row, each in enumerate(runs):
        if each is None:
            continue
        here, wide = slice(row * heads, (row + 1) * heads), each.start_NK.shape[1]
        both_2NK[0, here, :wide] = each.start_NK
        both_2NK[1, here, :wide] = 1 if each.size_NK is None else each.size_NK
        count_N[here] = each.count_N
    return Runs(both_2NK[0], both_2NK[1], count_N)
