"""Rows of a data set from a file or the hub, and fields of a row with errors that name both."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from datetime import date, time
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longspan.tasks.files import decoded, read_text
from longspan.tasks.hub import hub

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from longspan.types import Example

Row = dict[str, Any]
Placed = tuple[str, Row]
"""Where a row stands, for error messages, and the row."""
OUTPUTS = ("outputs", "answers", "answer", "output")
"""What a row may call its answers."""
_TEXTS = ("context", "input", "question")
ROW_FILES = (".jsonl", ".json", ".csv", ".parquet")
"""The endings of files of rows."""


def parse_rows(text: str, kind: str, source: str) -> list[Placed]:
    """(place, row) of JSON lines (`jsonl`), of a JSON list, an object or an object holding a list
    (`json`, which may hold JSON lines as well), or of `csv`; the place is for error messages.

    A byte-order mark and blank lines are skipped. ValueError names `source` and the line.
    """
    text = text.removeprefix("\ufeff")
    if kind == "csv":
        return _numbered(_csv_rows(text, source), source)
    # Only "\n" ends a row: a JSON string may hold U+2028 and other Unicode line ends.
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    if kind == "jsonl" or (len(lines) > 1 and all(line.startswith("{") for _, line in lines)):
        pairs = [(f"{source}, line {i}", decoded(line, source, i)) for i, line in lines]
    else:
        pairs = _numbered(_inside(decoded(text, source)), source)
    for place, row in pairs:
        if not isinstance(row, dict):
            raise ValueError(f"{place}: an object is expected, found {type(row).__name__}")
    return pairs


def _numbered(rows: Sequence[Any], source: str) -> list[tuple[str, Any]]:
    return [(f"{source}, row {number}", row) for number, row in enumerate(rows)]


def _inside(value: Any) -> list[Any]:
    """A list itself; the one list of objects that an object holds; else the object, which it also
    is where it has a text to read.
    """
    if isinstance(value, list):
        return value
    if not isinstance(value, dict) or any(name in value for name in _TEXTS):
        return [value]
    lists = [part for part in value.values() if isinstance(part, list) and part]
    lists = [part for part in lists if all(isinstance(each, dict) for each in part)]
    return lists[0] if len(lists) == 1 else [value]


def _csv_rows(text: str, source: str) -> list[Row]:
    # Otherwise a field of more than 131072 letters is refused, and long documents are our subject.
    csv.field_size_limit(max(csv.field_size_limit(), len(text) + 1))
    try:
        rows = list(csv.DictReader(io.StringIO(text, newline="")))
    except csv.Error as error:
        raise ValueError(f"{source}: not readable CSV ({error})") from None
    for number, row in enumerate(rows):
        if any(row.get(None, ())):  # DictReader's name for the rest
            raise ValueError(
                f"{source}, row {number}: has more cells than there are names in the first line; "
                "right would be quotes around a cell with commas"
            )
    # an empty cell leaves its field out: CSV has no other way to say so
    kept = [{name: row[name] for name in row if name is not None} for row in rows]
    return [
        {name: _listed(cell) if name in OUTPUTS else cell for name, cell in row.items() if cell}
        for row in kept
    ]


def _listed(cell: str) -> Any:
    """A cell of answers: a list where it is one of texts, as JSON, for which CSV has no other way;
    `[1, 2]` is an answer.
    """
    try:
        found = json.loads(cell) if cell.startswith("[") else None
    except ValueError:
        return cell
    texts = isinstance(found, list) and bool(found) and all(isinstance(x, str) for x in found)
    return found if texts else cell


def read_rows(path: str | Path, setting: str = "task.path") -> list[Placed]:
    """(place, row) of a .jsonl, .json, .csv or .parquet file; ValueError naming `setting` where it
    is missing, empty or of another kind.
    """
    kind = Path(path).suffix.lower()
    source = f"{setting}={path}"
    if kind not in ROW_FILES:
        raise ValueError(f"{source}: must end in .jsonl, .json, .csv or .parquet")
    if kind == ".parquet":
        pairs = _numbered(_parquet_rows(path, source), source)
    else:
        pairs = parse_rows(read_text(path, setting), kind.removeprefix("."), source)
    if not pairs:
        raise ValueError(f"{source}: holds no rows")
    return pairs


def _parquet_rows(path: str | Path, source: str) -> list[Row]:
    from pyarrow import parquet

    try:
        rows: list[Row] = parquet.read_table(Path(path).expanduser()).to_pylist()
    except Exception as error:  # whatever a damaged file makes pandas or pyarrow raise
        reason = str(error).strip().split("\n")[0]
        raise ValueError(f"{source}: not readable parquet ({reason})") from None
    return [{name: _json_value(value) for name, value in row.items()} for row in rows]


def _json_value(value: Any) -> Any:
    """A value as a JSON file would hold it: days and times in ISO 8601, decimals as they are
    written, NaN as missing.
    """
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, list):
        return [_json_value(each) for each in value]
    if isinstance(value, dict):
        return {name: _json_value(each) for name, each in value.items()}
    return None if value != value else value


def hub_rows(name: str, config: str | None, split: str, how: str) -> list[Placed]:
    """(place, row) of a data set of the Hugging Face hub; ValueError as of `hub`."""
    with hub(name, how):
        from datasets import load_dataset

        rows = [dict(row) for row in load_dataset(name, config, split=split)]
    return _numbered(rows, name)


def field(row: Mapping[str, Any], names: Sequence[str], where: str) -> Any:
    """The first of the `names` that the row has (None and "" count as missing)."""
    for name in names:
        if row.get(name) not in (None, ""):
            return row[name]
    found = ", ".join(sorted(map(str, row))) or "nothing"
    raise ValueError(f"{where}: field {' or '.join(names)} is missing (the row has: {found})")


def text_field(row: Mapping[str, Any], names: Sequence[str], where: str) -> str:
    """Like `field`, and it must be text (or a number, which is written out)."""
    value = field(row, names, where)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        named = next(name for name in names if row.get(name) not in (None, ""))
        raise ValueError(f"{where}: field {named} must be text, found {type(value).__name__}")
    return value


def unique(examples: Sequence[Example], where: str) -> Sequence[Example]:
    """The examples; ValueError where two have one id, which a resumed run could not tell apart."""
    seen: set[str] = set()
    for example in examples:
        if example.id in seen:
            raise ValueError(f"{where}: two rows have the id {example.id}")
        seen.add(example.id)
    return examples


def text_sha256(text: str) -> str:
    """Digest of a text's UTF-8 bytes."""
    return hashlib.sha256(text.encode()).hexdigest()
