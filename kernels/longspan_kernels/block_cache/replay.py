"""What a cache of some size and policy would have done on a recorded trace."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from longspan_kernels.block_cache.cache import BlockCache, Policy

if TYPE_CHECKING:
    from collections.abc import Iterable

    from longspan_kernels.dispatch import Backend
    from longspan_kernels.types import Runs


@dataclass(frozen=True, slots=True)
class Replay:
    """Entries are tokens of one KV head."""

    steps: int
    hit_entries: int
    miss_entries: int
    admitted_entries: int
    entry_bytes: int

    @property
    def hit_ratio(self) -> float:
        """Share of the entries read that were in the cache; 0 where nothing was read."""
        return self.hit_entries / max(1, self.hit_entries + self.miss_entries)

    @property
    def bus_bytes(self) -> int:
        """What came from the store."""
        return self.miss_entries * self.entry_bytes


def simulate(
    trace: Iterable[Runs],
    capacity: int,
    policy: Policy,
    *,
    page: int = 8,
    groups: int = 1,
    entry_bytes: int = 1,
    backend: Backend = "auto",
) -> Replay:
    """Replay what one layer of one sequence read, step by step, through a cache of `capacity`
    entries (all KV heads together) that is empty at first.

    A trace is what `Selection.retrieved` held after each decode step, on the CPU: runs of slots,
    best first, N rows of `groups` KV heads. entry_bytes: key and value of one token. A capacity of
    5% of the KV vectors is round(0.05 * tokens * groups). No key or value is needed.
    """
    cache = BlockCache(capacity // page, page=page, groups=groups, policy=policy, backend=backend)
    steps = hits = misses = admitted = 0
    for runs in trace:
        found = cache.look_up(runs)
        cache.update(found)
        entries = cache.wait()
        steps += 1
        hits += found.hit_entries
        misses += found.miss_entries
        admitted += sum(
            int(size_P[:count].sum())
            for size_P, count in zip(entries.size_NP, entries.count_N.tolist(), strict=True)
        )
    return Replay(steps, hits, misses, admitted, entry_bytes)
