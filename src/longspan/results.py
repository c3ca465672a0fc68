"""A results folder as one tidy table, and what can be said of it.

from longspan import results
runs = results.read("results")          # a row a run
samples = results.read_samples("results")   # a row a sample
"""

from __future__ import annotations

import math
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longspan.comparison import budget_curve, paired_bootstrap, pareto, significance
from longspan.errors import one_line
from longspan.record.files import read_json
from longspan.record.jsonl import first
from longspan.record.jsonl import read_samples as read_file
from longspan.statistics import needed_samples

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import pandas as pd

__all__ = [
    "budget_curve",
    "needed_samples",
    "paired_bootstrap",
    "pareto",
    "read",
    "read_heads",
    "read_run",
    "read_samples",
    "read_steps",
    "significance",
]


KEYS = ("task", "ctx", "model", "method", "fingerprint", "pairing", "n", "score")
"""What a summary must have to be one."""
NUMBERS = ("ctx", "score.", "recall.", "work.", "latency.", "memory.", "metrics.")
"""What the names of its numbers begin with."""
WAYS = "latency.steps_by"
"""The one among them that is a text."""


class Unfinished(ValueError):
    """A run that was stopped, or works still."""


def read(folder: str | Path) -> pd.DataFrame:
    """A row a run, columns by dotted names: score.mean, recall.at_100, latency.ms_per_token,
    set.retrieval_budget (the method's settings), ...

    Runs that are not finished are left out; `frame.attrs["left_out"]` has a line for each. Raises
    ValueError where no other is there, and for what no run leaves, as samples of another
    fingerprint than their folder's summary.
    """
    import pandas as pd

    rows, left_out = [], []
    for path in _runs(folder):
        try:
            rows.append(read_run(path))
        except Unfinished as error:
            left_out.append(str(error))
    if not rows:
        raise ValueError(f"{folder}: holds no finished run; {left_out[0]}")
    frame = pd.DataFrame(rows)
    frame.attrs["left_out"] = left_out
    return frame


def read_run(path: Path) -> dict[str, Any]:
    """The row of the run in a folder; raises Unfinished, or ValueError as `read` does."""
    summary = _flat(_summary(path))
    with as_left(path / "summary.json"):
        for name in ("task", "model", "method", "pairing"):
            if not isinstance(summary.get(name), str):
                raise ValueError(f"{name} = {summary.get(name)!r} is no name")
        for name, value in {"ctx": {}, **summary}.items():
            if value is None or name == WAYS or not name.startswith(NUMBERS):
                continue
            if type(value) not in (int, float) or not math.isfinite(value):
                raise ValueError(f"{name} = {value!r} is no number")
    with as_left(path / "fingerprint.json"):
        identity = read_json(path / "fingerprint.json") or {}
        prefill = {f"prefill.{key}": each for key, each in identity.get("prefill", {}).items()}
        settings = _flat({**identity.get("method", {}), **prefill})
    set_to = {f"set.{key}": value for key, value in settings.items()}
    return {"folder": str(path), **summary, **set_to}


@contextmanager
def as_left(file: Path) -> Iterator[None]:
    """Within, whatever a file holds that no run leaves there is a ValueError that names it."""
    try:
        yield
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise ValueError(f"{file}: not as a run leaves it ({one_line(error)})") from error


def read_samples(folder: str | Path) -> pd.DataFrame:
    """A row a sample, with the task, ctx, model, method and fingerprint of its run; all that are
    recorded, of which a run's summary takes the first `answers` to each example.

    Lines that are no sample are left out; `frame.attrs["corrupt"]` names them by file. Raises
    ValueError where there is no sample, and for a file of mixed fingerprints.
    """
    import pandas as pd

    rows: list[dict[str, Any]] = []
    corrupt: dict[str, list[int]] = {}
    for path in _runs(folder):
        file = path / "samples.jsonl"
        found = read_file(file)
        if len(found.fingerprints) > 1:
            raise ValueError(f"{file}: holds samples of {len(found.fingerprints)} fingerprints")
        if found.corrupt:
            corrupt[str(file)] = found.corrupt
        facts = _facts(path)
        for record in found.records:
            fields = {name: getattr(record, name) for name in record.__dataclass_fields__}
            rows.append({"folder": str(path), **facts, **_flat(fields)})
    if not rows:
        raise ValueError(f"{folder}: holds no sample")
    frame = pd.DataFrame(rows)
    frame.attrs["corrupt"] = corrupt
    return frame


def read_heads(folder: str | Path) -> pd.DataFrame:
    """A row a layer and query head of a run: recall, recovered_mass, output_error, ...

    Raises ValueError where no run has measured it.
    """
    from longspan.recall_table import by_head

    return by_head((path, _facts(path)) for path in _runs(folder))


def read_steps(folder: str | Path) -> pd.DataFrame:
    """As `read_heads`, a row a teacher-forced step, means over layers and heads."""
    from longspan.recall_table import by_step

    return by_step((path, _facts(path)) for path in _runs(folder))


def _runs(folder: str | Path) -> Sequence[Path]:
    root = Path(folder)
    if not root.is_dir():
        raise ValueError(f"{root}: there is no such folder")
    found = sorted(path.parent for path in root.rglob("fingerprint.json"))
    if not found:
        raise ValueError(f"{root}: holds no run; python run.py results={root} makes one")
    return found


def _summary(path: Path) -> dict[str, Any]:
    summary = read_json(path / "summary.json")
    if summary is None or any(key not in summary for key in KEYS):
        raise Unfinished(
            f"{path / 'summary.json'}: missing or cut short; run the same command again, which "
            "only writes what is missing"
        )
    samples, digest, n = read_file(path / "samples.jsonl"), summary["fingerprint"], summary["n"]
    answers = summary.get("answers")
    if found := samples.fingerprints - {str(digest)}:
        raise ValueError(
            f"{path}: the samples are of fingerprint {found.pop()[:10]}, the summary of "
            f"{str(digest)[:10]}; they are not one run"
        )
    count = len(first(samples.records, answers if isinstance(answers, int) else None))
    if n not in range(count, count + len(samples.corrupt) + 1):  # a line may be damaged since
        raise Unfinished(
            f"{path / 'summary.json'}: sums up {n} samples, and there are {count}; run the same "
            "command again"
        )
    return summary


def _facts(path: Path) -> dict[str, Any]:
    summary = read_json(path / "summary.json") or {}
    names = ("task", "ctx", "model", "method", "protocol", "fingerprint", "pairing")
    return {name: summary.get(name) for name in names}


def _flat(value: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, each in value.items():
        if isinstance(each, dict):
            flat.update(_flat(each, f"{path}{key}."))
        else:
            flat[f"{path}{key}"] = each
    return flat
