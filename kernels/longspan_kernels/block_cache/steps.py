"""Caches that are brought up to date beside decode steps which never wait for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from longspan_kernels.block_cache import reference_steps
from longspan_kernels.dispatch import native, path

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from longspan_kernels.block_cache.cache import Policy
    from longspan_kernels.dispatch import Backend


HOST = torch.device("cpu")


class StepCount(NamedTuple):
    """What a step found in one cache, and what was let in behind it; tokens."""

    hit_entries: int
    miss_entries: int
    admitted_entries: int


class StepCaches:
    """The caches of B rows with G KV heads and some layers each, which share the row's pages. The
    rows' pages follow one another in one pool.
    """

    def __init__(
        self,
        pages: Sequence[int],
        *,
        page: int,
        groups: int,
        layers: int = 1,
        policy: Policy = "lru",
        backend: Backend = "auto",
    ) -> None:
        """`pages`: of each row's cache."""
        self.rows, self.groups, self.backend = len(pages), groups, backend
        by_reference = path(backend, None) is None
        make = reference_steps.StepCaches if by_reference else native.StepCaches
        self.handle: Any = make(list(pages), page, groups, policy, layers)


class CacheSteps:
    """What keeps the caches up to date beside the steps of one layer.

    `begin`, the step, `wait`: the step says what it reads, which lies in `read` (best first; runs
    of size 0 are ignored) before `flag` is raised, and a thread that waits for the flag brings the
    caches up to date. The pages that it lets in are in `admitted`, for the next step to copy. All
    of these lie in host memory, pinned where the step is a GPU's.
    """

    def __init__(
        self,
        caches: StepCaches,
        layer: int = 0,
        *,
        width: int,
        most: int,
        device: torch.device = HOST,
    ) -> None:
        """`width`: runs of a KV head in a step. `most`: pages that a row's cache lets in a step.
        `device`: the step's.
        """
        rows, heads = caches.rows, caches.rows * caches.groups
        pinned = device.type == "cuda"
        self.read = torch.zeros(heads * (2 * width + 1), dtype=torch.int32, pin_memory=pinned)
        self.flag = torch.zeros(1, dtype=torch.int32, pin_memory=pinned)
        self.admitted_BA4 = torch.zeros(rows, most, 4, dtype=torch.int32, pin_memory=pinned)
        """int32: KV head, counted over all rows; first slot; size; first row of the pool."""
        self.count_B = torch.zeros(rows, dtype=torch.int32, pin_memory=pinned)
        ends = heads * width
        arrays = (
            self.read[:ends].view(heads, width),
            self.read[ends : 2 * ends].view(heads, width),
            self.read[2 * ends :],
            self.flag,
            self.admitted_BA4,
            self.count_B,
        )
        by_reference = path(caches.backend, None) is None
        make = reference_steps.CacheSteps if by_reference else native.CacheSteps
        self._steps: Any = make(caches.handle, layer, *arrays)
        self._raised = torch.ones(1, dtype=torch.int32, device=device)

    def begin(self) -> None:
        """Before a step."""
        self._steps.begin()

    def say(self, said: Tensor) -> None:
        """What the step reads, as `packed` has it. Waits for nothing; where that is on the device,
        the host knows it when the device comes to it.
        """
        self.read.copy_(said, non_blocking=True)
        if said.is_cuda:
            from longspan_kernels.block_cache.triton import raise_flag

            raise_flag(self.flag, self._raised)
        else:
            self._steps.raise_flag()

    def wait(self, seconds: float = 60.0) -> list[StepCount]:
        """Before the next one, or before `admitted` is looked at; a count a cache, or none where no
        step was begun. Raises RuntimeError where the step did not say what it read, ValueError
        where that is no list of runs.
        """
        return [StepCount(*counts) for counts in self._steps.wait(seconds)]


def packed(start_NK: Tensor, size_NK: Tensor, count_N: Tensor) -> Tensor:
    """What a step reads, as `CacheSteps.read` holds it."""
    return torch.cat([start_NK.reshape(-1), size_NK.reshape(-1), count_N]).int()
