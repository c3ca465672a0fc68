"""Files that are written whole or not at all, and values as JSON can write them."""

from __future__ import annotations

import json
import math
import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def plain(value: Any) -> Any:
    """`value` in JSON's types; numbers that JSON cannot write become null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if hasattr(value, "item") and not isinstance(value, str | bytes):
        return plain(value.item())
    return value


def write_json(path: Path, value: Any) -> None:
    """Write the whole file or nothing."""
    write_text(path, json.dumps(plain(value), indent=2, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write the whole file or nothing."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with names(path), draft.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def read_json(path: Path) -> dict[str, Any] | None:
    """The JSON object in a file; None where there is none."""
    try:
        value = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def entries(value: Any, name: str) -> dict[str, Any]:
    """The object under a name of a file that somebody may have edited; empty where none is."""
    found = value.get(name) if isinstance(value, dict) else None
    return found if isinstance(found, dict) else {}


def numbers(value: Any) -> dict[str, float | None]:
    """The numbers of an object in such a file; None where a value is something else."""
    found = value if isinstance(value, dict) else {}
    return {key: each if _is_number(each) else None for key, each in found.items()}


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) <= sys.float_info.max


@contextmanager
def names(path: Path) -> Iterator[None]:
    """Within, an error of the system names the file: a full disk does not say whose it is."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise
