"""Unfinished answers on disk, so that a crash costs seconds of a long generation."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from types import TracebackType

    from longspan.measures.quality import Answer


class Partials:
    """partials.jsonl of a run: a line adds tokens to an answer. Removed when all are complete."""

    def __init__(self, folder: Path, every_s: float) -> None:
        self._path = folder / "partials.jsonl"
        self._every_s = every_s
        self._begun = _read(self._path)
        self._written = {key: len(tokens) for key, tokens in self._begun.items()}
        self._last = time.monotonic()
        self._file: IO[str] | None = None

    def of(self, example: str, samples: Sequence[int]) -> dict[int, list[int]]:
        """The tokens that a stopped run had of these answers, by sample."""
        begun = {sample: self._begun.get((example, sample), []) for sample in samples}
        return {sample: tokens for sample, tokens in begun.items() if tokens}

    def growing(self, answers: Sequence[Answer]) -> None:
        """Write down what has grown, if the last time is long enough ago."""
        if time.monotonic() - self._last < self._every_s:
            return
        if self._file is None:
            self._file = self._path.open("a", encoding="utf-8")
        for answer in answers:
            key = (answer.job.example.id, answer.sample)
            start = self._written.get(key, 0)
            tokens = answer.stream.tokens[start:]
            row = {"id": key[0], "sample": key[1], "start": start, "tokens": tokens}
            self._file.write(json.dumps(row) + "\n")
            self._written[key] = start + len(tokens)
        self._file.flush()
        self._last = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._file is not None:
            self._file.close()
        if kind is None:
            self._path.unlink(missing_ok=True)


def _read(path: Path) -> dict[tuple[str, int], list[int]]:
    """What the lines add up to; a line that is cut short or does not continue is left out."""
    found: dict[tuple[str, int], list[int]] = {}
    if not path.exists():
        return found
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        with suppress(ValueError, KeyError, TypeError):
            row = json.loads(line)
            tokens = found.setdefault((row["id"], row["sample"]), [])
            if row["start"] == len(tokens):
                tokens.extend(row["tokens"])
    return found
