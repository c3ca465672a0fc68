"""What a cache of some size and policy would have done on a recorded trace."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from longspan_kernels.block_cache.cache import BlockCache, Policy

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from torch import Tensor

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
    layers: int = 1,
    warmup: int = 0,
    entry_bytes: int = 1,
    backend: Backend = "auto",
) -> Replay:
    """Replay what the layers of one sequence read, step by step, through a cache of `capacity`
    entries (all layers and KV heads together) that is empty at first.

    A trace is what `Selection.retrieved` held in each layer after each decode step, layer after
    layer, on the CPU: runs of slots, best first, N rows of `groups` KV heads. warmup: so many steps
    at its beginning only fill the cache; nothing of them is counted. entry_bytes: key and value of
    one token. A capacity of 5% of the KV vectors is round(0.05 * tokens * groups * layers). No key
    or value is needed.
    """
    cache = BlockCache(
        capacity // page, page=page, groups=groups, layers=layers, policy=policy, backend=backend
    )
    steps = hits = misses = admitted = 0
    for number, runs in enumerate(trace):
        found = cache.look_up(runs, number % layers)
        cache.update(found)
        entries = cache.wait()
        if number < warmup * layers:
            continue
        steps += 1
        hits += found.hit_entries
        misses += found.miss_entries
        admitted += sum(
            int(size_P[:count].sum())
            for size_P, count in zip(entries.size_NP, entries.count_N.tolist(), strict=True)
        )
    return Replay(steps // layers, hits, misses, admitted, entry_bytes)


def optimum(
    trace: Sequence[Runs],
    capacity: int,
    *,
    groups: int = 1,
    layers: int = 1,
    warmup: int = 0,
    entry_bytes: int = 1,
) -> Replay:
    """What no policy can beat on the trace: after each of its parts the cache keeps, of what it
    held and what was read, the entries that are read again soonest (Belady, IBM Systems Journal 5,
    1966).

    Entries are kept one by one, where a policy keeps whole clusters in whole pages, so the best of
    these may lie lower. admitted_entries counts what stays beyond its own step.
    """
    counted = [_entries(runs, groups, number % layers) for number, runs in enumerate(trace)]
    read = [entry_E for entry_E, _ in counted]
    held_E = due_E = torch.empty(0, dtype=torch.int64)
    hits = misses = admitted = 0
    parts = zip(counted, _next_reads(read, warmup * layers), strict=True)
    for number, ((entry_E, times_E), next_E) in enumerate(parts):
        hit_E, counts = torch.isin(entry_E, held_E), number >= warmup * layers
        hits += counts * int(times_E[hit_E].sum())
        misses += counts * int(times_E[~hit_E].sum())
        stays_E = ~torch.isin(held_E, entry_E)
        due_E, order_E = torch.cat((due_E[stays_E], next_E)).sort(stable=True)
        kept = min(capacity, int((due_E < len(read)).sum()))
        new_E = torch.cat((torch.zeros(int(stays_E.sum()), dtype=torch.bool), ~hit_E))
        admitted += counts * int(new_E[order_E[:kept]].sum())
        held_E = torch.cat((held_E[stays_E], entry_E))[order_E[:kept]]
        due_E = due_E[:kept]
    return Replay(max(0, len(read) // layers - warmup), hits, misses, admitted, entry_bytes)


def _entries(runs: Runs, groups: int, layer: int) -> tuple[Tensor, Tensor]:
    """Different numbers for different slots of different KV heads and layers, int64 [E], and how
    many rows read each.
    """
    rows = len(runs.count_N)
    times: Counter[int] = Counter()
    for row, count in enumerate(runs.count_N.tolist()):
        starts = runs.start_NK[row, :count].long()
        sizes = (
            torch.ones_like(starts) if runs.size_NK is None else runs.size_NK[row, :count].long()
        )
        before = sizes.cumsum(0) - sizes
        slot_E = torch.arange(int(sizes.sum())) + (starts - before).repeat_interleave(sizes)
        head = layer * groups + row * groups // rows
        times.update((slot_E + (head << 32)).tolist())
    read = torch.tensor(sorted(times.items()), dtype=torch.int64).view(-1, 2)
    return read[:, 0], read[:, 1]


def _next_reads(read: list[Tensor], counted: int) -> list[Tensor]:
    """For each entry of each part, the next part from `counted` on that reads it; past the last
    where none does.
    """
    after: dict[int, int] = {}
    found: list[Tensor] = []
    for step in range(len(read) - 1, -1, -1):
        entries = read[step].tolist()
        found.append(torch.tensor([after.get(e, len(read)) for e in entries], dtype=torch.int64))
        if step >= counted:
            after.update(dict.fromkeys(entries, step))
    return found[::-1]
