"""A run against full attention on the same samples, where such a run lies beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from longspan.comparison import shared
from longspan.record.files import read_json
from longspan.record.jsonl import read_samples
from longspan.statistics import difference_interval

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from longspan.comparison import Answer
    from longspan.types import Record

NAME = "full"


def baseline_delta(
    folder: Path, records: Sequence[Record], pairing: str
) -> dict[str, float | int | bool | None]:
    """The difference of `records` to the answers of full attention, over those that both have; of
    several runs of it, to that which shares most examples.
    """
    nothing: dict[str, float | int | bool | None]
    nothing = {"mean": None, "low": None, "high": None, "n": None, "distinguishable": None}
    if not records:
        return nothing
    others = (_scores(read_samples(file).records) for file in _files(folder, pairing))
    ours, theirs = shared(_scores(records), others)
    if not ours:
        return nothing
    weighed = all("nats" in record.meta for record in records)
    interval = difference_interval(ours, theirs, weighed=weighed)
    return {**interval._asdict(), "n": len(ours), "distinguishable": interval.excludes_zero}


def damaged(folder: Path, pairing: str) -> Iterator[str]:
    """A line a file of full attention's that a run is compared with and that holds lines which are
    no sample.
    """
    for file in _files(folder, pairing):
        if lines := read_samples(file).corrupt:
            shown = ", ".join(map(str, lines[:5])) + (", ..." if len(lines) > 5 else "")
            yield (
                f"{file}: no sample in {'line' if len(lines) == 1 else 'lines'} {shown}; the "
                "comparison is without, until the same command with method=full answers again"
            )


def _files(folder: Path, pairing: str) -> Iterator[Path]:
    """The samples of full attention that a run is compared with; full attention is with none."""
    if folder.name.startswith(f"{NAME}-"):
        return
    for other in sorted(folder.parent.glob(f"{NAME}-*")):
        if (read_json(other / "fingerprint.json") or {}).get("pairing") == pairing:
            yield other / "samples.jsonl"


def _scores(records: Iterable[Record]) -> dict[Answer, float]:
    return {(record.id, record.sample): record.score for record in records}
