"""A long answer cut into stretches, so that what changes as it grows can be seen."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

STRETCH = 1024
"""Steps; as many as an index takes in at once by default."""


def stretches(steps: Sequence[int]) -> Iterator[tuple[dict[str, int], list[int]]]:
    """({"first", "stop"}, places in `steps` of what lies in [first, stop)), in their order; those
    with nothing in them are left out. `stop` of the last is one past its last step.
    """
    for first in range(0, max(steps, default=-1) + 1, STRETCH):
        places = [place for place, step in enumerate(steps) if first <= step < first + STRETCH]
        if places:
            stop = min(first + STRETCH, max(steps) + 1)
            yield {"first": first, "stop": stop}, places
