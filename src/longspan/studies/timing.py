"""Seconds of calls that take turns."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def best_seconds(calls: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """The least of `rounds` wall times of each call, after one that warms up: whatever else a
    machine does only adds to a time, so the least is the nearest to the call's own.
    """
    least = dict.fromkeys(calls, float("inf"))
    for turn in range(rounds + 1):
        for name, call in calls.items():
            begun = time.perf_counter()
            call()
            if turn:
                least[name] = min(least[name], time.perf_counter() - begun)
    return least
