"""Caches beside decode steps, in the caller's own thread."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from longspan_kernels.block_cache.reference import BlockCache

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


class StepCaches:
    """As the native ones."""

    def __init__(
        self, pages: Sequence[int], page: int, groups: int, policy: str, layers: int
    ) -> None:
        self.caches = [BlockCache(count, page, groups, policy, layers) for count in pages]


class CacheSteps:
    """As the native one; `wait` does all the work."""

    def __init__(
        self,
        caches: StepCaches,
        layer: int,
        start_NK: Tensor,
        size_NK: Tensor,
        count_N: Tensor,
        flag: Tensor,
        admitted_BA4: Tensor,
        count_B: Tensor,
    ) -> None:
        self.caches, self.layer = caches.caches, layer
        self.read = start_NK, size_NK, count_N
        self.flag, self.admitted_BA4, self.count_B = flag, admitted_BA4, count_B
        self.begun = False

    def begin(self) -> None:
        """Before a step."""
        self.flag.zero_()
        self.begun = True

    def raise_flag(self) -> None:
        """The step has left what it read."""
        self.flag.fill_(1)

    def wait(self, seconds: float) -> list[tuple[int, int, int]]:
        """Entries hit, missed and admitted, a cache."""
        if not self.begun:
            return []
        self.begun = False
        if not int(self.flag):
            raise RuntimeError("a decode step never said what it read")
        counts, first_row = [], 0
        for number, cache in enumerate(self.caches):
            heads = slice(number * cache.groups, (number + 1) * cache.groups)
            start_NK, size_NK, count_N = (each[heads] for each in self.read)
            found = cache.look_up(start_NK, size_NK, count_N, self.layer)
            most = self.admitted_BA4.shape[1]
            cache.update(found, from_store=True, most_pages=most)
            done = cache.wait()
            pages = [
                (heads.start + row, slot, size, first_row + source)
                for row, listed in enumerate(done.rows)
                for source, slot, size in listed
            ]
            if pages:
                self.admitted_BA4[number, : len(pages)] = torch.tensor(pages, dtype=torch.int32)
            self.count_B[number] = len(pages)
            counts.append((found.hit_entries, found.miss_entries, done.admitted_entries))
            first_row += cache.pages * cache.page
        return counts
