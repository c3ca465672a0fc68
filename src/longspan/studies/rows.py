"""What a study has measured, kept through a kill."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

T = TypeVar("T")
Row = dict[str, Any]


class Rows:
    """Rows by unit, a JSON line each; a line that was cut short counts as missing."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.wall_s = self.cpu_s = 0.0
        """What all units have taken, those of earlier runs included."""
        self._known: dict[str, Row] = {}
        for line in path.read_text().splitlines() if path.exists() else ():
            try:
                known = json.loads(line)
                self._known[known["unit"]] = known
            except (ValueError, KeyError, TypeError):
                continue

    def take(self, unit: T, measure: Callable[[T], Sequence[Row]]) -> Sequence[Row]:
        """The unit's rows, measured if they are not there."""
        name = json.dumps(unit, sort_keys=True, default=str)
        if name not in self._known:
            wall_s, cpu_s = time.perf_counter(), time.process_time()
            rows = list(measure(unit))
            wall_s, cpu_s = time.perf_counter() - wall_s, time.process_time() - cpu_s
            self._known[name] = {"unit": name, "rows": rows, "wall_s": wall_s, "cpu_s": cpu_s}
            self._append(self._known[name])
        self.wall_s += self._known[name]["wall_s"]
        self.cpu_s += self._known[name]["cpu_s"]
        found: Sequence[Row] = self._known[name]["rows"]
        return found

    def _append(self, entry: Row) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as file:
            # a line of its own even behind one that was cut short
            file.write(("\n" if file.tell() else "") + json.dumps(entry))
            file.flush()
            os.fsync(file.fileno())
