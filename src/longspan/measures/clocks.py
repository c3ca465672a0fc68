"""Clocks on parts of a session's layer states, hung on and taken off."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from longspan.tensors import wait_for_devices

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from longspan.methods.base import LayerState
    from longspan.models.base import Session

PROBES = (
    ("build_s", ("seal",)),
    ("update_ms", ("append",)),
    ("absorb_ms", ("absorb",)),
    ("search_ms", ("index", "search")),
    ("attend_ms", ("placement", "attend_ranges")),
    ("attend_ms", ("near", "attend_ranges")),
    ("together_ms", ("together",)),
    ("fused_ms", ("fused",)),
    ("gather_attend_ms", ("placement", "attend_runs")),
)
"""What is clocked: (name in the ledger, where it is found on a layer's state)."""


@contextmanager
def clocked(session: Session, ledger: dict[str, float], names: Sequence[str]) -> Iterator[None]:
    """Add up in `ledger` what the named probes take, until the end of the block; leaves no trace.

    A state without such a part is not probed, and the name stays absent.
    """
    hung: list[tuple[Any, str]] = []
    try:
        for state in (state for layer in session.states for state in layer):
            for name, where in PROBES:
                if name in names:
                    hung += _hang(state, where, ledger, name)
        yield
    finally:
        for owner, attribute in hung:
            delattr(owner, attribute)


def _hang(
    state: LayerState, where: Sequence[str], ledger: dict[str, float], name: str
) -> list[tuple[Any, str]]:
    owner: Any = state
    for attribute in where[:-1]:
        owner = getattr(owner, attribute, None)
    act = getattr(owner, where[-1], None)
    if act is None or where[-1] in getattr(owner, "__dict__", {where[-1]}):
        return []
    unit = 1.0 if name.endswith("_s") else 1000.0
    setattr(owner, where[-1], _timed(act, ledger, name, unit))
    return [(owner, where[-1])]


def _timed(
    act: Callable[..., Any], ledger: dict[str, float], name: str, unit: float
) -> Callable[..., Any]:
    def timed(*arguments: Any, **named: Any) -> Any:
        wait_for_devices()
        start = time.perf_counter()
        result = act(*arguments, **named)
        wait_for_devices()
        ledger[name] += (time.perf_counter() - start) * unit
        return result

    return timed
