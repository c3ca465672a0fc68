"""Rows of a data set from a file or the hub, and fields of a row with errors that name both."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import urllib.error
import urllib.request
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from longspan.tasks.files import parse_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from longspan.types import Example

Row = dict[str, Any]


def parse_rows(text: str, kind: str, source: str) -> list[Row]:
    """Rows of JSON lines (`jsonl`), of a JSON list or of a dict holding one (`json`), or of `csv`.

    A byte-order mark and blank lines are skipped. ValueError names `source` and the line.
    """
    text = text.removeprefix("\ufeff")
    if kind == "csv":
        return _csv_rows(text, source)
    if kind == "jsonl":
        # Only "\n" ends a row: a JSON string may hold U+2028 and other Unicode line ends.
        lines = [(i, line) for i, line in enumerate(text.split("\n"), 1) if line.strip()]
        rows = [_decode(line, f"{source}, line {number}") for number, line in lines]
    else:
        value = _decode(text, source)
        rows = value if isinstance(value, list) else _inside(value)
    for number, row in enumerate(rows):
        if not isinstance(row, dict):
            kind_found = type(row).__name__
            raise ValueError(f"{source}, row {number}: an object is expected, found {kind_found}")
    return rows


def _inside(value: Any) -> list[Any]:
    """The one list of objects that an object holds, else the object itself."""
    parts = value.values() if isinstance(value, dict) else []
    lists = [part for part in parts if isinstance(part, list) and part]
    lists = [part for part in lists if all(isinstance(each, dict) for each in part)]
    return lists[0] if len(lists) == 1 else [value]


def _csv_rows(text: str, source: str) -> list[Row]:
    # Otherwise a field of more than 131072 letters is refused, and long documents are our subject.
    csv.field_size_limit(max(csv.field_size_limit(), len(text) + 1))
    try:
        return [dict(row) for row in csv.DictReader(io.StringIO(text, newline=""))]
    except csv.Error as error:
        raise ValueError(f"{source}: not readable CSV ({error})") from None


def _decode(text: str, where: str) -> Any:
    try:
        return parse_json(text, where)
    except json.JSONDecodeError as error:
        raise ValueError(f"{where}: not valid JSON ({error.msg}, column {error.colno})") from None


def read_rows(path: Path) -> list[Row]:
    """The rows of a .jsonl, .json, .csv or .parquet file; ValueError where it is missing, empty or
    of another kind.
    """
    kind = path.suffix.lower().removeprefix(".")
    if not path.is_file():
        raise ValueError(f"task.path={path}: no such file")
    if kind == "parquet":
        rows = _parquet_rows(path)
    elif kind in ("jsonl", "json", "csv"):
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"task.path={path}: not UTF-8 text ({error.reason})") from None
        rows = parse_rows(text, kind, f"task.path={path}")
    else:
        raise ValueError(f"task.path={path}: must end in .jsonl, .json, .csv or .parquet")
    if not rows:
        raise ValueError(f"task.path={path}: holds no rows")
    return rows


def _parquet_rows(path: Path) -> list[Row]:
    import pandas

    try:
        text = pandas.read_parquet(path).to_json(orient="records")
    except Exception as error:  # whatever a damaged file makes pandas or pyarrow raise
        reason = str(error).strip().split("\n")[0]
        raise ValueError(f"task.path={path}: not readable parquet ({reason})") from None
    rows: list[Row] = json.loads(text)
    return rows


def hub_rows(name: str, config: str | None, split: str, how: str) -> list[Row]:
    """The rows of a data set of the Hugging Face hub. Where that fails (no network, gated), the
    ValueError ends with `how`: what to do instead.
    """
    try:
        from datasets import load_dataset

        with _offline_if_unreachable():
            return [dict(row) for row in load_dataset(name, config, split=split)]
    except Exception as error:  # the hub's clients raise a zoo: offline, gated, missing, renamed
        first = str(error).strip().splitlines()[0][:200] if str(error).strip() else ""
        raise ValueError(
            f"task.path is not set and {name} could not be read from the hub "
            f"({type(error).__name__}: {first}). {how}"
        ) from None


@contextmanager
def _offline_if_unreachable() -> Iterator[None]:
    """Without a network only what is cached is looked for; the clients would try for a minute."""
    import datasets
    from huggingface_hub import constants

    try:
        with urllib.request.urlopen(constants.ENDPOINT, timeout=10):
            unreachable = False
    except urllib.error.HTTPError:
        unreachable = False
    except OSError:
        unreachable = True
    before = constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE
    if unreachable:
        constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE = before


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


def file_sha256(path: Path) -> str:
    """Digest of a file's bytes; read again only when the file has changed."""
    stat = path.stat()
    return _sha256(path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=256)
def _sha256(path: Path, changed_ns: int, size: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def text_sha256(text: str) -> str:
    """Digest of a text's UTF-8 bytes."""
    return hashlib.sha256(text.encode()).hexdigest()
