"""The recall pass of many runs as tidy tables: by layer and head, and by step."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from longspan.record.files import read_json
from longspan.results import as_left

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import pandas as pd

    Runs = Iterable[tuple[Path, Mapping[str, Any]]]

FILE = "recall.json"


def by_head(runs: Runs) -> pd.DataFrame:
    """A row a layer and query head of a run, with what the recall pass measured there.

    `runs` are folders with the facts that their rows begin with. Raises ValueError where no run has
    measured it.
    """
    rows = []
    for facts, found in _tables(runs):
        with as_left(Path(facts["folder"]) / FILE):
            tables = found["by_layer_and_head"]
            for place, layer in enumerate(found["layers"]):
                for head in range(len(tables["recovered_mass"][place])):
                    values = {name: table[place][head] for name, table in tables.items()}
                    rows.append({**facts, "layer": layer, "head": head, **values})
    return _frame(rows)


def by_step(runs: Runs) -> pd.DataFrame:
    """A row an observed step of a run, means over its examples, layers and heads; otherwise as
    `by_head`.
    """
    rows = []
    for facts, found in _tables(runs):
        with as_left(Path(facts["folder"]) / FILE):
            tables = found["by_step"]
            steps = found.get("steps", range(len(tables["recovered_mass"])))
            for place, step in enumerate(steps):
                values = {name: table[place] for name, table in tables.items()}
                rows.append({**facts, "step": step, **values})
    return _frame(rows)


def _tables(runs: Runs) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    tables = []
    for path, facts in runs:
        found = (read_json(path / FILE) or {}).get("found")
        if found:
            tables.append(({"folder": str(path), **facts}, found))
    return tables


def _frame(rows: list[dict[str, Any]]) -> pd.DataFrame:
    import pandas as pd

    if not rows:
        raise ValueError("no run has measured recall; measure=recall or measure=all does")
    frame = pd.DataFrame(rows)
    measured = [name for name in frame if frame[name].dtype == object and _numeric(frame[name])]
    return frame.astype(dict.fromkeys(measured, float))


def _numeric(column: pd.Series[Any]) -> bool:
    return all(value is None or isinstance(value, float) for value in column)
