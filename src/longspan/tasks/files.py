"""Reading a user's files, with errors that name the field, the file and the line."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

_ESCAPED_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def read_text(path: str, field: str) -> str:
    """The file's text; raises ValueError naming `field` where it is missing, not UTF-8 or empty."""
    try:
        text = Path(path).expanduser().read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{field}={path}: not UTF-8 text ({error.reason})") from error
    except OSError as error:
        raise ValueError(f"{field}={path}: cannot be read ({error.strerror})") from error
    if not text.strip():
        raise ValueError(f"{field}={path}: the file is empty")
    return text


def read_json(path: str, field: str) -> Any:
    """The file as one JSON value; raises ValueError naming `field`, the file and the line."""
    return _parse(read_text(path, field), f"{field}={path}", 1)


def read_rows(path: str, field: str) -> list[tuple[str, dict[str, Any]]]:
    """(place, row) of a .json file (a list of objects, or one) or a .jsonl file; the place is for
    error messages.

    A .json file that holds one object a line is read as .jsonl. Raises ValueError naming `field`,
    file and line.
    """
    text = read_text(path, field)
    source = f"{field}={path}"
    # Only a line feed ends a row: a JSON text may hold U+2028 and other line ends.
    lines = text.split("\n")
    if path.endswith(".jsonl") or _is_lines(lines):
        pairs = [
            (f"{source} line {number}", _parse(line, source, number))
            for number, line in enumerate(lines, start=1)
            if line.strip()
        ]
    else:
        content = _parse(text, source, 1)
        items = content if isinstance(content, list) else [content]
        pairs = [(f"{source} entry {number}", item) for number, item in enumerate(items)]
    if not pairs:
        raise ValueError(f"{source}: the list is empty")
    for place, row in pairs:
        if not isinstance(row, dict):
            raise ValueError(f"{place}: expected an object, found {type(row).__name__}")
    return pairs


def file_sha256(path: str, field: str) -> str:
    """Hexadecimal SHA-256 of the file's bytes; raises ValueError naming `field`."""
    try:
        with Path(path).expanduser().open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise ValueError(f"{field}={path}: cannot be read ({error.strerror})") from error


def parse_json(text: str, place: str) -> Any:
    """The value of a JSON text. JSONDecodeError where it is none; ValueError naming `place` where
    it holds what cannot be worked with: half characters, endless numbers or nesting.
    """
    try:
        value = json.loads(text)
        if _ESCAPED_SURROGATE.search(text):
            json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError:
        raise
    except UnicodeEncodeError as error:
        half = ascii(error.object[error.start])
        raise ValueError(
            f"{place}: {half} is half a character; right would be a pair, or the character itself"
        ) from error
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else "a number too long"
        raise ValueError(f"{place}: not readable JSON ({reason})") from error
    return value


def _parse(text: str, source: str, first_line: int) -> Any:
    try:
        return parse_json(text, f"{source} line {first_line}")
    except json.JSONDecodeError as error:
        line = first_line + error.lineno - 1
        raise ValueError(f"{source} line {line}: not valid JSON ({error.msg})") from error


def _is_lines(lines: list[str]) -> bool:
    """Whether every line starts an object and there are several: JSON lines under another name."""
    full = [line for line in lines if line.strip()]
    return len(full) > 1 and all(line.startswith("{") for line in full)
