"""The truth of a run: its folder, whose samples survive a kill at any moment."""

from __future__ import annotations

import fcntl
import json
import math
import os
import socket
from dataclasses import asdict
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from longspan.record.base import Busy
from longspan.record.files import names, plain, read_json, write_json, write_text
from longspan.types import Record

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path
    from types import TracebackType

NUMBER = (int, float)
Kind = type[object] | tuple[type[object], ...]
KINDS: dict[str, Kind] = {
    "id": str, "sample": int, "prediction": str, "references": list, "score": NUMBER,
    "prompt_tokens": int, "new_tokens": int, "finish": str, "seed": int, "work": dict, "meta": dict,
}  # fmt: skip
"""What JSON has for a record's fields; `work` holds numbers."""


class Samples(NamedTuple):
    """What a samples.jsonl holds; every sample once."""

    records: list[Record]
    fingerprints: set[str]
    corrupt: list[int]
    """Numbers, from 1, of the lines that are no sample."""
    clean: bool
    """Whether the file is exactly one whole line a sample."""


def read_samples(path: Path) -> Samples:
    """All samples of a file that may be missing, cut short or damaged."""
    data = path.read_bytes() if path.exists() else b""
    records: dict[tuple[str, int], Record] = {}
    fingerprints: set[str] = set()
    corrupt: list[int] = []
    lines = data.split(b"\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            record = record_of(row)
            fingerprints.add(str(row["fingerprint"]))
        except (ValueError, TypeError, KeyError, RecursionError):
            corrupt.append(number)
        else:
            records.setdefault((record.id, record.sample), record)
    clean = lines[-1] == b"" and len(lines) == len(records) + 1
    return Samples(list(records.values()), fingerprints, corrupt, clean)


def first(records: Iterable[Record], answers: int | None) -> list[Record]:
    """Those of the first so many answers to each example, in their order; None: all."""
    return [record for record in records if answers is None or record.sample < answers]


class RunFolder:
    """The folder of one run, held by one process while open.

    Entering raises Busy while another process holds it; the hold of a killed process is void.
    """

    def __init__(self, path: Path, fingerprint: str) -> None:
        self.path = path
        self.fingerprint = fingerprint
        self.records: list[Record] = []
        self.corrupt: list[int] = []
        self._lock: IO[str] | None = None
        self._samples: IO[bytes] | None = None

    def __enter__(self) -> RunFolder:
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock = self._locked()
        self._recover()
        self._samples = (self.path / "samples.jsonl").open("ab", buffering=0)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for file in (self._samples, self._lock):
            if file is not None:
                file.close()

    @property
    def done(self) -> set[tuple[str, int]]:
        """(example id, sample) of everything recorded."""
        return {(record.id, record.sample) for record in self.records}

    def append(self, record: Record) -> None:
        """Write one sample; it is on disk when this returns."""
        assert self._samples is not None, "the folder is not open"
        line, written = self._line(record), 0
        with names(self.path / "samples.jsonl"):
            while written < len(line):
                written += self._samples.write(line[written:])
            os.fsync(self._samples.fileno())
        self.records.append(record)

    def write(self, name: str, value: Any) -> None:
        """Write a JSON file, whole."""
        write_json(self.path / name, value)

    def write_yaml(self, name: str, value: Any) -> None:
        """Write a YAML file, whole."""
        import yaml

        text = yaml.safe_dump(plain(value), sort_keys=False, allow_unicode=True)
        write_text(self.path / name, text)

    def read(self, name: str) -> dict[str, Any] | None:
        """A JSON file of the folder; None where it is missing or unreadable."""
        return read_json(self.path / name)

    def _locked(self) -> IO[str]:
        file = (self.path / "run.lock").open("a+", encoding="utf-8")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "another process"
            file.close()
            raise Busy(
                f"results = {self.path}: {holder} is working here; wait for it or name another "
                "results folder"
            ) from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        return file

    def _recover(self) -> None:
        path = self.path / "samples.jsonl"
        found = read_samples(path)
        foreign = found.fingerprints - {self.fingerprint}
        if foreign:
            raise ValueError(
                f"{path}: holds samples of fingerprint {foreign.pop()!r}, this run is "
                f"{self.fingerprint!r}; move the file away"
            )
        self.corrupt, self.records = found.corrupt, found.records
        if not found.clean and path.exists() and path.stat().st_size:
            with (self.path / "samples.damaged.jsonl").open("ab") as damaged:
                damaged.write(path.read_bytes().rstrip(b"\n") + b"\n")
                os.fsync(damaged.fileno())
            write_text(path, "".join(self._line(record).decode() for record in self.records))

    def _line(self, record: Record) -> bytes:
        row = {"fingerprint": self.fingerprint, **asdict(record)}
        return json.dumps(plain(row), ensure_ascii=False).encode() + b"\n"


def record_of(row: Mapping[str, Any]) -> Record:
    """The record of a line of samples.jsonl; raises KeyError or TypeError where it is none."""
    fields = {name: _checked(row[name], kind) for name, kind in KINDS.items() if name in row}
    for value in fields["work"].values():
        _checked(value, NUMBER)
    return Record(**{**fields, "references": tuple(fields["references"])})


def _checked(value: Any, kind: Kind) -> Any:
    finite = not isinstance(value, float) or math.isfinite(value)
    if not isinstance(value, kind) or isinstance(value, bool) or not finite:
        raise TypeError(f"{value!r}: no value of a sample")
    return value
