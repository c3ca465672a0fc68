"""Unfinished answers on disk, so that a crash costs seconds of a long generation."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from contextlib import suppress
from functools import partial
from typing import IO, TYPE_CHECKING, Any, Self

from longspan.measures.answers import Begun
from longspan.record.files import names, write_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from collections.abc import Set as AbstractSet
    from pathlib import Path
    from types import TracebackType

    from longspan.measures.answers import Answer

Line = dict[str, Any]


class Partials:
    """partials.jsonl of a run, where a line adds tokens to an answer, and in partials/ what the
    model stored of them. An answer's stay until it is recorded, which may be by a later command;
    those of answers `recorded` already, as (example id, sample), go when this is entered.
    """

    def __init__(
        self, folder: Path, every_s: float, recorded: AbstractSet[tuple[str, int]] = frozenset()
    ) -> None:
        self._path = folder / "partials.jsonl"
        self._blocks = folder / "partials"
        self._every_s = every_s
        self._lines = {key: lines for key, lines in self._read().items() if key not in recorded}
        self._written = {key: lines[-1]["stop"] for key, lines in self._lines.items()}
        self._last = time.monotonic()
        self._file: IO[str] | None = None

    def of(self, example: str, samples: Sequence[int]) -> dict[int, Begun]:
        """What a stopped run had of these answers, by sample."""
        return {s: self._begun((example, s)) for s in samples if (example, s) in self._lines}

    def growing(self, answers: Sequence[Answer]) -> None:
        """Write down what has grown, if the last time is long enough ago."""
        if time.monotonic() - self._last < self._every_s:
            return
        with names(self._path):
            self._write(answers)
        self._last = time.monotonic()

    def _write(self, answers: Sequence[Answer]) -> None:
        if self._file is None:
            self._file = self._path.open("a", encoding="utf-8")
            if self._file.tell():
                self._file.write("\n")  # the last line may have been cut short
        for answer in answers:
            key = (answer.job.example.id, answer.sample)
            start, stop = self._written.get(key, 0), len(answer.stream.tokens)
            row = {
                "id": key[0],
                "sample": key[1],
                "start": start,
                "stop": stop,
                "tokens": answer.stream.tokens[start:],
                "block": self._store(key, answer.stored()),
            }
            # the block is there before the line that tells of it
            self._file.write(json.dumps(row) + "\n")
            self._written[key] = stop
        self._file.flush()

    def done(self, example: str, sample: int) -> None:
        """The answer is recorded: nothing else of it stays."""
        key = (example, sample)
        self._blocks_of(key).unlink(missing_ok=True)
        if self._written.pop(key, None) is not None:
            self._tidy()

    def __enter__(self) -> Self:
        self._tidy()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close()
        if kind is None:
            self._tidy()

    def _tidy(self) -> None:
        """Leave the lines and blocks of the answers that are begun; nothing where none are."""
        self._close()
        begun = {key: lines for key, lines in self._read().items() if key in self._written}
        if not begun:
            self._path.unlink(missing_ok=True)
            shutil.rmtree(self._blocks, ignore_errors=True)
            return
        rows = [row for lines in begun.values() for row in lines]
        write_text(self._path, "".join(f"{json.dumps(row)}\n" for row in rows))
        for path in set(self._blocks.glob("*")) - set(map(self._blocks_of, begun)):
            path.unlink()

    def _close(self) -> None:
        if self._file is not None:
            with names(self._path):
                self._file.close()
            self._file = None

    def _store(self, key: tuple[str, int], block: bytes) -> tuple[int, int] | None:
        """(where the block begins in the answer's file, its bytes); None where nothing is kept."""
        if not block:
            return None
        self._blocks.mkdir(exist_ok=True)
        path = self._blocks_of(key)
        with names(path), path.open("ab") as file:
            begin = file.tell()
            file.write(block)
        return begin, len(block)

    def _blocks_of(self, key: tuple[str, int]) -> Path:
        return self._blocks / hashlib.sha256(f"{key[0]}/{key[1]}".encode()).hexdigest()[:16]

    def _begun(self, key: tuple[str, int]) -> Begun:
        lines = self._lines[key]
        tokens = [token for line in lines for token in line["tokens"]]
        whole = self._is_whole(key, lines)
        return Begun(tokens, partial(self._play, key, lines) if whole else None)

    def _is_whole(self, key: tuple[str, int], lines: Sequence[Line]) -> bool:
        """Whether there is a block to every line that says that the model has stored anything."""
        path = self._blocks_of(key)
        size = path.stat().st_size if path.exists() else 0
        blocks = [line.get("block") for line in lines if _stored(line)]
        return all(block and sum(block) <= size for block in blocks)

    def _play(self, key: tuple[str, int], lines: Sequence[Line]) -> Iterator[tuple[int, bytes]]:
        for line in filter(_stored, lines):
            begin, size = line["block"]
            with self._blocks_of(key).open("rb") as file:
                file.seek(begin)
                yield _stored(line), file.read(size)

    def _read(self) -> dict[tuple[str, int], list[Line]]:
        """The lines by answer; one that is cut short, damaged or does not continue is left out."""
        found: dict[tuple[str, int], list[Line]] = {}
        if not self._path.exists():
            return found
        for text in self._path.read_text(encoding="utf-8", errors="replace").splitlines():
            with suppress(ValueError, KeyError, TypeError, AttributeError):
                line = _checked(json.loads(text))
                before = found.get((line["id"], line["sample"]), [])
                start = before[-1]["stop"] if before else 0
                if line["start"] == start and line["stop"] == start + len(line["tokens"]) > start:
                    found[line["id"], line["sample"]] = [*before, line]
        return found


def _checked(line: Line) -> Line:
    """The line, if it has numbers where they should be; or an error else."""
    begin, size = (0, 0) if line.get("block") is None else line["block"]
    numbers = (line["start"], line["stop"], *line["tokens"], begin, size)
    if not all(type(each) is int and each >= 0 for each in numbers):
        raise TypeError
    return line


def _stored(line: Line) -> int:
    """How many tokens the model stored between this line and the one before: of an answer's tokens
    it has not read the last.
    """
    return int(line["stop"]) - 1 - max(int(line["start"]) - 1, 0)
