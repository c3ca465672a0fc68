"""Prepared rows on disk: one JSONL file and its manifest a key, shared by parallel runs, proof
against being killed.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import tempfile
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence


@dataclass(frozen=True, slots=True)
class RowCache:
    """Rows that are a pure function of `key`, of which any number can be asked: the first ones are
    always the same.
    """

    folder: Path
    """Of this key alone."""
    key: Mapping[str, Any]

    @classmethod
    def at(cls, data_dir: str, name: str, key: Mapping[str, Any]) -> RowCache:
        """The cache of `key` under `data_dir`; `name` is for people."""
        return cls(Path(data_dir) / f"{name}-{_digest(_dump(key))}", key)

    def rows(
        self,
        count: int,
        make: Callable[[int], list[dict[str, Any]]],
        missing: Callable[[], None] = lambda: None,
    ) -> list[dict[str, Any]]:
        """The first `count` rows; `make(count)` is called where fewer are stored or a stored one is
        damaged.

        Of several processes that want the same rows one makes them and the others wait; all of
        them call `missing` before.
        """
        found = self._read(count)
        if found is not None:
            return found
        missing()
        with self._lock():
            found = self._read(count)
            if found is None:
                found = make(count)
                self._write(found)
        return found

    def _read(self, count: int) -> list[dict[str, Any]] | None:
        """The first `count` rows, or None where they are not all there and whole."""
        try:
            digests = json.loads((self.folder / "manifest.json").read_text("utf-8"))["rows"]
            if len(digests) < count:
                return None
            with (self.folder / "rows.jsonl").open(encoding="utf-8") as stream:
                lines = [stream.readline().rstrip("\n") for _ in range(count)]
            if any(_digest(line) != digest for line, digest in zip(lines, digests, strict=False)):
                return None
            return [json.loads(line) for line in lines]
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        lines = [_dump(row) for row in rows]
        manifest = {"key": dict(self.key), "rows": [_digest(line) for line in lines]}
        # A reader between the two renames finds rows that do not match, and waits for the lock.
        _replace(self.folder / "rows.jsonl", "".join(f"{line}\n" for line in lines))
        _replace(self.folder / "manifest.json", json.dumps(manifest, indent=1, ensure_ascii=False))

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """Held by one process at a time; the system lets go of it when its holder dies."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "lock").open("a") as stream:
            # Some network file systems have no locks: then two may work at once, and the last
            # rename wins.
            with suppress(OSError):
                fcntl.flock(stream, fcntl.LOCK_EX)
            yield


def _dump(value: Mapping[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _replace(path: Path, text: str) -> None:
    """Write the whole file beside `path` and rename it there, on the disk before it is seen."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).replace(path)
    except BaseException as error:
        Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError):
            error.filename = str(path)  # a full disk does not say whose
        raise
