"""Every run of a results folder, and by name what had to be left out of it."""

from __future__ import annotations

import math
import operator
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longspan import results
from longspan.comparison import weighed
from longspan.record.files import read_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd

    from longspan.comparison import Answer

MARKS = ("config.yaml", "fingerprint.json", "samples.jsonl")
"""A folder that holds one of them is, or was to become, a run."""

Grid = tuple[tuple[float | None, ...], ...]
"""Means by layer and head."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One run."""

    folder: Path
    facts: Mapping[str, Any]
    """Its row of `results.read`; None where it was not measured."""
    settings: Mapping[str, Any]
    conditions: Mapping[str, Any]
    """What identifies it, less its method and task, by dotted names."""
    scores: Mapping[Answer, float]
    """Of all recorded answers."""
    weighed: bool = False
    """Whether these are of texts that are weighed."""
    needles: Mapping[tuple[int, float], float] = field(default_factory=dict)
    """Mean score by (length in tokens, depth in percent)."""
    layers: tuple[int, ...] = ()
    mass: Grid = ()
    """Recovered attention mass."""
    hardware: str = ""

    @property
    def method(self) -> str:
        """Its method's name."""
        return str(self.facts["method"])

    @property
    def metrics(self) -> dict[str, float]:
        """The task's own numbers beside the score, by name."""
        found = {name: self.number(name) for name in self.facts if name.startswith("metrics.")}
        return {
            name.removeprefix("metrics."): value
            for name, value in found.items()
            if value is not None
        }

    def number(self, name: str) -> float | None:
        """A measured fact; None where it was not measured."""
        value = self.facts.get(name)
        return None if value is None else float(value)


@dataclass(frozen=True, kw_only=True)
class Book:
    """What a report is written from."""

    root: Path
    entries: Sequence[Entry]
    left_out: Sequence[str]
    """A line a run that is no run, with the reason."""
    notes: Sequence[str]
    """A line a file from which something was skipped."""


def gather(folder: str | Path) -> Book:
    """Read all that can be read.

    Raises ValueError where there is no folder or no finished run in it.
    """
    root = Path(folder)
    if not root.is_dir():
        raise ValueError(f"{root}: there is no such folder")
    entries: list[Entry] = []
    left_out: list[str] = []
    notes: list[str] = []
    for path in _candidates(root):
        try:
            entries.append(_entry(path, notes))
        except (ValueError, OSError) as error:
            left_out.append(str(error).replace(f"{root}/", ""))
    if not entries:
        why = f"; {left_out[0]}" if left_out else f"; python run.py results={root} makes one"
        raise ValueError(f"{root}: holds no finished run{why}")
    return Book(
        root=root,
        entries=entries,
        left_out=left_out,
        notes=[note.replace(f"{root}/", "") for note in notes],
    )


def _candidates(root: Path) -> list[Path]:
    found = {path.parent for name in MARKS for path in root.rglob(name)} - {root}
    return sorted(path for path in found if not _aside(path.relative_to(root)))


def _aside(path: Path) -> bool:
    """Whether it belongs to a tool and not to us."""
    return any(part.startswith(".") or part == "wandb" for part in path.parts)


def _entry(path: Path, notes: list[str]) -> Entry:
    identity = read_json(path / "fingerprint.json")
    if identity is None:
        raise ValueError(f"{path}: no fingerprint.json; it was stopped before it began")
    facts = results.read_run(path)
    with results.as_left(path / "samples.jsonl"):
        frame = _samples(path, notes) if facts["n"] else None
        scores, needles = ({}, {}) if frame is None else _scores(frame)
    with results.as_left(path / "recall.json"):
        layers, mass = _mass(path)
    return Entry(
        folder=path,
        facts=facts,
        settings=_flat({**identity.get("method", {}), "prefill": identity.get("prefill", {})}),
        conditions=_flat(
            {k: v for k, v in identity.items() if k not in ("method", "prefill", "task", "pairing")}
        ),
        scores=scores,
        weighed=frame is not None and weighed(frame),
        needles=needles,
        layers=layers,
        mass=mass,
        hardware=_hardware(path),
    )


def _samples(path: Path, notes: list[str]) -> pd.DataFrame:
    frame = results.read_samples(path)
    for file, lines in frame.attrs["corrupt"].items():
        shown = ", ".join(map(str, lines[:5])) + (", ..." if len(lines) > 5 else "")
        word = "line" if len(lines) == 1 else "lines"
        notes.append(f"{file}: skipped {len(lines)} {word} that hold no sample: {shown}")
    return frame


def _scores(frame: pd.DataFrame) -> tuple[dict[Answer, float], dict[tuple[int, float], float]]:
    """By answer, and means by the place of a needle."""
    scores, cells = {}, defaultdict(list)
    for row in frame.to_dict("records"):
        scores[str(row["id"]), int(row["sample"])] = float(row["score"])
        length, depth = row.get("meta.length"), row.get("meta.depth")
        if length == length and depth == depth and length is not None and depth is not None:
            cells[int(length), float(depth)].append(float(row["score"]))
    return scores, {key: sum(each) / len(each) for key, each in cells.items()}


def _mass(path: Path) -> tuple[tuple[int, ...], Grid]:
    found = (read_json(path / "recall.json") or {}).get("found") or {}
    grid = (found.get("by_layer_and_head") or {}).get("recovered_mass") or []
    values = [value for row in grid for value in row if value is not None]
    if not values:
        return (), ()
    layers = tuple(map(operator.index, found["layers"]))  # names of layers would be written as such
    if len(layers) != len(grid) or not all(map(math.isfinite, values)):
        raise ValueError("found.layers or the numbers of one are not those of a model")
    return layers, tuple(tuple(row) for row in grid)


def _hardware(path: Path) -> str:
    """Where the times are from; where none were taken, where the last command ran."""
    timed, last = path / "latency.json", path / "environment.json"
    with results.as_left(file := timed if read_json(timed) else last):
        facts = read_json(file) or {}
        machine, gpus = facts.get("hardware") or {}, facts.get("gpus") or []
        names = [str(gpu.get("name", gpu)) if isinstance(gpu, dict) else str(gpu) for gpu in gpus]
        threads = (facts.get("threads") or {}).get("torch")
        parts = [machine.get("cpu"), f"{threads} threads" if threads else None, *names]
        return ", ".join(str(part) for part in parts if part)


def _flat(value: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, each in value.items():
        if isinstance(each, dict):
            flat.update(_flat(each, f"{path}{key}."))
        else:
            flat[f"{path}{key}"] = each
    return flat
