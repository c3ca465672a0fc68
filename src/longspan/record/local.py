"""No mirror: the files of the results folder are all there is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from longspan.options import settings
from longspan.record.base import Recorder

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from longspan.types import Record


@settings
class LocalRecorder(Recorder):
    """Tells nobody."""

    def open(
        self,
        folder: Path,
        config: Mapping[str, Any],
        fingerprint: str,
        recorded: Sequence[Record] = (),
    ) -> None:
        """Nothing to open."""

    def sample(self, record: Record) -> None:
        """Nothing to tell."""

    def summary(self, summary: Mapping[str, Any]) -> None:
        """Nothing to tell."""

    def curve(self, name: str, points: Sequence[Mapping[str, float | None]]) -> None:
        """Nothing to tell."""

    def close(self) -> None:
        """Nothing to close."""
