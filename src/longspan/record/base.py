"""What a recorder is: it is told of samples and the summary, and loses neither."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from longspan.types import Record


class Busy(RuntimeError):
    """Another process works on the same results folder."""


class Recorder(ABC):
    """A mirror of a run; the files in its results folder are the truth and are written before any
    mirror is told.
    """

    @abstractmethod
    def open(
        self,
        folder: Path,
        config: Mapping[str, Any],
        fingerprint: str,
        recorded: Sequence[Record] = (),
    ) -> None:
        """A run begins or, with the samples `recorded` before, is resumed."""

    @abstractmethod
    def sample(self, record: Record) -> None:
        """One more sample is on disk."""

    @abstractmethod
    def summary(self, summary: Mapping[str, Any]) -> None:
        """The summary is on disk."""

    @abstractmethod
    def curve(self, name: str, points: Sequence[Mapping[str, float | None]]) -> None:
        """Numbers that change along an answer were measured; a point's place is its `stop`."""

    @abstractmethod
    def close(self) -> None:
        """The run ended, well or not. Never raises."""
