"""Fetch a data set into a folder, or say how to get it by hand.

python scripts/get_data.py longbench --to ~/data
python scripts/get_data.py --list

Exit codes: 0 it is there, 2 it could not be fetched; then the manual steps are printed. Nothing of
these data sets is shipped with longspan; mind their licences.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

from data_sources import SOURCES, Part

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

TIMEOUT_SECONDS = 60
HUB_ROOT = "https://huggingface.co"


def fetch_url(url: str, target: Path) -> None:
    """Write what `url` gives, whole or not at all. OSError where it cannot be reached."""
    with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as answer, whole(target) as file:
        while block := answer.read(1 << 20):
            file.write(block)


def fetch_rows(part: Part, target: Path) -> None:
    """Write a split of the hub as JSON lines; the essays as RULER has them: {"text": all}."""
    from datasets import load_dataset

    with urllib.request.urlopen(HUB_ROOT, timeout=TIMEOUT_SECONDS):
        pass  # without a network this fails at once; the hub's clients would try for a minute
    rows = [dict(row) for row in load_dataset(part.hub, part.config, split=part.split)]
    with whole(target) as file:
        if target.suffix == ".jsonl":
            file.writelines(f"{json.dumps(row, ensure_ascii=False)}\n".encode() for row in rows)
        else:
            text = " ".join(str(row["text"]) for row in rows)
            file.write(json.dumps({"text": text}).encode())


@contextmanager
def whole(target: Path) -> Iterator[IO[bytes]]:
    """A file that takes its name only when it is complete."""
    part = target.with_name(f"{target.name}.part")
    try:
        with part.open("wb") as file:
            yield file
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def get(name: str, folder: Path) -> None:
    """Fetch what is missing and say what is there. Any exception: it could not be fetched."""
    source = SOURCES[name]
    folder.mkdir(parents=True, exist_ok=True)
    for part in source.parts:
        target = folder / part.file
        if not target.exists():
            print(f"fetching {part.url or part.hub} ...", flush=True)
            fetch_url(part.url, target) if part.url else fetch_rows(part, target)
        with target.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        print(f"{target}: {target.stat().st_size} bytes, sha256 {digest}")
    print(f"licence: {source.licence}")
    print(f"use: python run.py {source.use.format(to=folder)}")


def manual(name: str, folder: Path, error: Exception) -> str:
    """What to do by hand."""
    source = SOURCES[name]
    reason = (str(error).strip().splitlines() or [""])[0][:200]
    files = ", ".join(part.file for part in source.parts)
    return f"""{name} could not be fetched ({type(error).__name__}: {reason}). By hand:
  1. where there is a network, open {source.page}
  2. {source.by_hand}
  3. put it here: {folder} ({files})
  4. python run.py {source.use.format(to=folder)}
licence: {source.licence}"""


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", nargs="?", choices=sorted(SOURCES))
    parser.add_argument("--to", type=Path, metavar="DIR", help="the folder, made if need be")
    parser.add_argument("--list", action="store_true", help="print the names and their pages")
    asked = parser.parse_args(arguments)
    if asked.list:
        print("\n".join(f"{name:13} {source.page}" for name, source in sorted(SOURCES.items())))
        return 0
    if asked.name is None or asked.to is None:
        parser.error("a name and --to DIR are needed, or --list")
    folder = asked.to.expanduser()
    try:
        get(asked.name, folder)
    except Exception as error:  # the hub's clients raise a zoo: offline, gated, renamed, disk full
        print(manual(asked.name, folder, error), file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
