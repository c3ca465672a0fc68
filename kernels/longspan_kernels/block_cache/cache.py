"""The table of a block cache on the native code, or on the reference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch

from longspan_kernels.block_cache import reference
from longspan_kernels.checks import check_runs
from longspan_kernels.dispatch import native, path
from longspan_kernels.types import Pages, Runs

if TYPE_CHECKING:
    from torch import Tensor

    from longspan_kernels.dispatch import Backend

Policy = Literal["lru", "tinylfu", "lfu"]
"""lru: every block gets in, the one not read for longest goes. tinylfu: the same one goes, but only
for a block read more often. lfu: the one read least often goes, for one read at least as often.
"""


@dataclass(frozen=True, slots=True)
class Found:
    """What a look-up found. Entries are tokens; a block is a run."""

    runs: Runs
    page: int
    handle: Any

    @property
    def length(self) -> int:
        """Entries that the longest row of the buffer must have."""
        return int(self.handle.length)

    @property
    def hit_entries(self) -> int:
        """Entries found in the cache, all rows together."""
        return int(self.handle.hit_entries)

    @property
    def miss_entries(self) -> int:
        """Entries that only the store has, all rows together."""
        return int(self.handle.miss_entries)

    def pages(self, device: torch.device | None = None) -> Pages:
        """What `page_gather` must copy for the buffer to hold all runs, in their order."""
        return listed(self.handle, self.page, device)

    def buffered(self, device: torch.device | None = None) -> Runs:
        """The runs as they lie in the buffer: the same order and sizes, other places."""
        target_NK = staging(self.runs.start_NK.shape, device)
        self.handle.write_targets(target_NK)
        size_NK = self.runs.size_NK
        sizes = None if size_NK is None else moved(size_NK, device)
        return Runs(moved(target_NK, device), sizes, moved(self.runs.count_N, device))


class BlockCache:
    """Knows which blocks are cached and where; moves nothing itself.

    A block is a run of a layer's slots, named by KV head and first slot; it is cached as a whole,
    in pages of `page` entries, all but its last full. The layers and their `groups` KV heads share
    the `pages`. A step is `look_up`, `update`, `wait` for a layer after the other; the update works
    beside the caller, between the other two.
    """

    def __init__(
        self,
        pages: int,
        *,
        page: int = 8,
        groups: int = 1,
        layers: int = 1,
        policy: Policy = "lru",
        backend: Backend = "auto",
    ) -> None:
        given = {"pages": pages, "page": page, "groups": groups, "layers": layers}
        for name, value in given.items():
            if value < (least := int(name != "pages")):
                raise ValueError(f"{name} is {value}; it must be at least {least}")
        if policy not in get_args(Policy):
            raise ValueError(f"policy is {policy!r}; right is one of {', '.join(get_args(Policy))}")
        make = reference.BlockCache if path(backend, None) is None else native.BlockCache
        self._table: Any = make(pages, page, groups, policy, layers)
        self.page, self.groups, self.layers = page, groups, layers

    @property
    def pages(self) -> int:
        """Capacity."""
        return int(self._table.pages)

    @property
    def free_pages(self) -> int:
        """Pages that hold nothing."""
        return int(self._table.free_pages)

    @property
    def blocks(self) -> int:
        """Blocks held."""
        return int(self._table.blocks)

    def look_up(self, runs: Runs, layer: int = 0) -> Found:
        """What of these runs of a layer, best first, is cached; changes nothing. The runs are on
        the CPU; row n of N belongs to KV head n * groups // N. Raises ValueError where an update is
        under way.
        """
        if not 0 <= layer < self.layers:
            raise ValueError(f"layer is {layer}; the cache has {self.layers}, counted from 0")
        check_runs(runs, len(runs.count_N), self.groups)
        start_NK, count_N = runs.start_NK.contiguous(), runs.count_N.contiguous()
        size_NK = None if runs.size_NK is None else runs.size_NK.contiguous()
        handle = self._table.look_up(start_NK, size_NK, count_N, layer)
        return Found(Runs(start_NK, size_NK, count_N), self.page, handle)

    def update(self, found: Found) -> None:
        """Begin to let in what was missing; what was read becomes the newest. A layer that is not
        above the one before it begins a step, which throws out nothing that it has read.
        """
        self._table.update(found.handle)

    def wait(self, device: torch.device | None = None) -> Pages:
        """What the update let in, for `page_admit`, once it is done."""
        return listed(self._table.wait(), self.page, device)

    def grow(self, pages: int) -> None:
        """More pages; what is cached stays."""
        self._table.grow(pages)


def staging(shape: tuple[int, ...], device: torch.device | None) -> Tensor:
    """int32 zeros in host memory, from where a GPU can fetch them without the caller waiting."""
    pinned = device is not None and device.type == "cuda"
    return torch.zeros(shape, dtype=torch.int32, pin_memory=pinned)


def moved(tensor: Tensor, device: torch.device | None) -> Tensor:
    """The tensor on the device; None: as it is."""
    return tensor if device is None else tensor.to(device, non_blocking=True)


def listed(handle: Any, page: int, device: torch.device | None) -> Pages:
    """The pages as arrays, brought to the device in one copy."""
    rows, width = handle.row_count, handle.width
    lists = staging((3 * rows * width + rows,), device)

    def parts(flat: Tensor) -> list[Tensor]:
        arrays = flat[: 3 * rows * width].view(3, rows, width)
        return [*arrays, flat[3 * rows * width :]]

    handle.write(*parts(lists))
    source_NP, target_NP, size_NP, count_N = parts(moved(lists, device))
    return Pages(source_NP, target_NP, size_NP, count_N, page)
