"""Cases that are done, kept so that an interrupted run goes on where it stopped."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from tables import Table

from longspan_kernels.dispatch import native

if TYPE_CHECKING:
    from tables import Settings

HERE = Path(__file__).parent
FOLDER = HERE.parents[1] / "results" / ".bench"


def version() -> str:
    """Changes with the compiled kernels and with the benchmarks themselves."""
    digest = hashlib.sha256()
    compiled = [] if native is None else [Path(native.__file__ or "")]
    for path in [*compiled, *sorted(HERE.glob("*.py"))]:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


class Finished:
    """Tables by case, of one hardware, one version and one set of settings."""

    def __init__(self, hardware: str, settings: Settings) -> None:
        facts = json.dumps([hardware, version(), asdict(settings)])
        self.folder = FOLDER / hashlib.sha256(facts.encode()).hexdigest()[:16]

    def get(self, case: str) -> list[Table]:
        """The tables of a case; none where it was not run."""
        path = self._path(case)
        return [Table(**facts) for facts in json.loads(path.read_text())] if path.exists() else []

    def put(self, case: str, tables: list[Table], seconds: float) -> list[Table]:
        """Keep the tables, with a note of when they were made and how long that took."""
        when = f"{time.strftime('%d %B %Y')}, {seconds:.0f} s."
        tables = [Table(t.title, t.head, t.rows, (*t.notes, when)) for t in tables]
        self.folder.mkdir(parents=True, exist_ok=True)
        draft = self._path(case).with_suffix(".part")
        draft.write_text(json.dumps([asdict(table) for table in tables]))
        draft.replace(self._path(case))
        return tables

    def forget(self, case: str) -> None:
        """The case will be run again."""
        self._path(case).unlink(missing_ok=True)

    def _path(self, case: str) -> Path:
        return self.folder / f"{case.replace(' ', '_')}.json"
