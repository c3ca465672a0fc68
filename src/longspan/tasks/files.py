"""Reading a user's files, with errors that name the field, the file and the line."""

from __future__ import annotations

import hashlib
import json
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

_ESCAPED_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def read_text(path: str | Path, field: str) -> str:
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
    return decoded(read_text(path, field), f"{field}={path}")


def file_sha256(path: str | Path, field: str = "task.path") -> str:
    """Hexadecimal SHA-256 of the file's bytes, read again only when the file has changed; raises
    ValueError naming `field`.
    """
    try:
        stat = Path(path).expanduser().stat()
        return _sha256(Path(path).expanduser(), stat.st_mtime_ns, stat.st_size)
    except OSError as error:
        raise ValueError(f"{field}={path}: cannot be read ({error.strerror})") from error


@lru_cache(maxsize=256)
def _sha256(path: Path, changed_ns: int, size: int) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


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


def decoded(text: str, source: str, first_line: int = 1) -> Any:
    """The value of a JSON text that begins in line `first_line` of `source`; raises ValueError
    naming source and line.
    """
    try:
        return parse_json(text, f"{source}, line {first_line}")
    except json.JSONDecodeError as error:
        where = f"{source}, line {first_line + error.lineno - 1}"
        raise ValueError(f"{where}: not valid JSON ({error.msg}, column {error.colno})") from error
