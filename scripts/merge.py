"""Put together what several processes answered of one run, each with a results folder of its own.

    python run.py task=aime24 task.start=0  samples=15 results=shards/a &
    python run.py task=aime24 task.start=15 samples=15 results=shards/b
    python scripts/merge.py shards/a shards/b --to results
    python run.py task=aime24 samples=30                # finds all answered, and sums them up

Samples meet where everything that can change a number is the same (the fingerprint); those that are
there already stay. Exit codes: 0 done, 1 a run works there, 2 nothing to merge.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from longspan.errors import fail
from longspan.record.base import Busy
from longspan.record.jsonl import RunFolder, read_samples

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(argv: Sequence[str]) -> int:
    """Copy the samples of every shard; one line a run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shards", nargs="+", type=Path, help="folders of results")
    parser.add_argument("--to", type=Path, default=Path("results"), help="the folder to add to")
    arguments = parser.parse_args(argv)
    try:
        for shard in arguments.shards:
            found = sorted(shard.rglob("samples.jsonl"))
            if not found:
                raise ValueError(f"{shard}: there are no samples in it")
            for path in found:
                _add(path.parent, arguments.to / path.parent.relative_to(shard))
    except (ValueError, OSError, Busy) as error:
        return fail(error, debug=False)[1]
    return 0


def _add(source: Path, target: Path) -> None:
    samples = read_samples(source / "samples.jsonl")
    if len(samples.fingerprints) != 1:
        number = len(samples.fingerprints)
        raise ValueError(f"{source}: samples of {number} fingerprints; right would be one")
    with RunFolder(target, *samples.fingerprints) as folder:
        for name in ("config.yaml", "environment.json", "fingerprint.json"):
            if not (target / name).exists():
                (target / name).write_bytes((source / name).read_bytes())
        fresh = [each for each in samples.records if (each.id, each.sample) not in folder.done]
        for record in fresh:
            folder.append(record)
        total = len(folder.records)
    there = len(samples.records) - len(fresh)
    print(f"{target}: {len(fresh)} samples of {source} added, {there} were there; now {total}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
