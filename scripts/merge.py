"""Put together what several processes answered of one run, each with a results folder of its own.

    python run.py task=aime24 task.start=0  samples=15 results=shards/a &
    python run.py task=aime24 task.start=15 samples=15 results=shards/b
    python scripts/merge.py shards/a shards/b --to results
    python run.py task=aime24 samples=30                # finds all answered, and sums them up

Samples meet where everything that can change a number is the same (the fingerprint); those that are
there already stay. A folder in which nothing is answered yet is skipped. All is checked before
anything is written. Exit codes: 0 done, 1 a run works there, 2 what was named cannot be merged.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from longspan.errors import exit_code
from longspan.record.jsonl import RunFolder, Samples, read_samples

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

FILES = ("config.yaml", "environment.json", "fingerprint.json")


class Part(NamedTuple):
    """What one process answered of a run."""

    folder: Path
    samples: Samples
    files: Mapping[str, bytes]


def main(argv: Sequence[str]) -> int:
    """Copy the samples of every shard; one line a run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shards", nargs="+", type=Path, help="folders of results")
    parser.add_argument("--to", type=Path, default=Path("results"), help="the folder to add to")
    arguments = parser.parse_args(argv)
    return exit_code(partial(_all, arguments.shards, arguments.to))


def _all(shards: Sequence[Path], to: Path) -> int:
    runs = _runs(shards, to)
    for target, parts in runs.items():
        _check(target, parts)
    for target, parts in runs.items():
        _merge(target, parts)
    return 0


def _runs(shards: Sequence[Path], to: Path) -> dict[Path, list[Part]]:
    """By the folder in which they are to meet, the parts that have samples."""
    runs = defaultdict(list)
    for shard in shards:
        found = sorted(path.parent for path in shard.rglob("samples.jsonl"))
        if not found:
            raise ValueError(f"{shard}: there are no samples in it")
        for folder in found:
            samples = read_samples(folder / "samples.jsonl")
            if samples.records:
                files = {name: (folder / name).read_bytes() for name in FILES}
                runs[to / folder.relative_to(shard)].append(Part(folder, samples, files))
            else:
                print(f"{folder}: skipped, nothing is answered there yet")
    return runs


def _check(target: Path, parts: Sequence[Part]) -> None:
    """Raises ValueError or Busy where the parts cannot meet in `target`."""
    fingerprints = set[str]().union(*(part.samples.fingerprints for part in parts))
    if len(fingerprints) > 1:
        places = ", ".join(str(part.folder) for part in parts)
        raise ValueError(f"{places}: samples of {len(fingerprints)} fingerprints; right is one")
    if target.exists():
        with RunFolder(target, *fingerprints):
            pass  # nobody works there, and what is there is of the same run


def _merge(target: Path, parts: Sequence[Part]) -> None:
    with RunFolder(target, *parts[0].samples.fingerprints) as folder:
        for part in parts:
            for name, content in part.files.items():
                if not (target / name).exists():
                    (target / name).write_bytes(content)
            known, records = folder.done, part.samples.records
            fresh = [record for record in records if (record.id, record.sample) not in known]
            for record in fresh:
                folder.append(record)
            print(
                f"{target}: {len(fresh)} samples of {part.folder} added, "
                f"{len(records) - len(fresh)} were there; now {len(folder.records)}"
            )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
