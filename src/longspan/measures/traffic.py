"""What the block caches of a session did over some steps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from longspan.placement.base import Traffic

if TYPE_CHECKING:
    from collections.abc import Iterable

    from longspan.methods.base import LayerState


def traffic(states: Iterable[LayerState]) -> Traffic | None:
    """Sums over layers and rows so far; None where no state has a cache."""
    placements: Iterable[Any] = (getattr(state, "placement", None) for state in states)
    found = [placement.traffic for placement in placements if placement is not None]
    caches = [one for one in found if one is not None]
    if not caches:
        return None
    total = Traffic()
    for one in caches:
        total.add(one)
    return total


def between(before: Traffic | None, after: Traffic | None, steps: int) -> dict[str, float | None]:
    """The ledger's entries of the steps between two readings, and what came before the first step;
    empty where there is no cache.
    """
    if before is None or after is None:
        return {}
    hits = after.hit_entries - before.hit_entries
    read = hits + after.miss_entries - before.miss_entries
    return {
        "hit_ratio": hits / read if read else None,
        "bus_bytes": (after.bus_bytes - before.bus_bytes) / steps,
        "wait_ms": (after.wait_s - before.wait_s) * 1000 / steps,
        "overflows": float(after.overflows - before.overflows),
        "prefetch_bytes": float(after.prefetch_bytes),
    }
