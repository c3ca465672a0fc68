"""Runs the benchmarks, prints their tables and writes them to a file named after the hardware.

    python kernels/bench/run.py                      all of them, at 131,072 tokens
    python kernels/bench/run.py --tokens 16384       the same at another context length
    python kernels/bench/run.py --only dense_decode  some; the file keeps what was measured before
    python kernels/bench/run.py --quick              small sizes, to see that they run: no file

A benchmark is a module bench_<op>.py here with `cases(settings)`: by name, calls that give tables.
Ctrl-C loses the case that is running; the next run goes on with it. `--again` measures anew.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from importlib import import_module
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from finished import Finished
from tables import DEFAULT_TOKENS, Settings, hardware, header

if TYPE_CHECKING:
    from collections.abc import Callable

    from tables import Table

HERE = Path(__file__).parent
QUICK_TOKENS = 4096


def names() -> list[str]:
    """The benchmarks there are."""
    return sorted(path.stem.removeprefix("bench_") for path in HERE.glob("bench_*.py"))


def all_cases(settings: Settings) -> dict[str, Callable[[], list[Table]]]:
    """Every case of every benchmark, by name."""
    return {
        f"{op} {name}".strip(): call
        for op in names()
        for name, call in import_module(f"bench_{op}").cases(settings).items()
    }


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Kernel benchmarks; ratios are taken in one run.")
    parser.add_argument("--only", nargs="+", choices=names(), default=names())
    parser.add_argument("--tokens", type=int, default=DEFAULT_TOKENS, help="context length")
    parser.add_argument("--rounds", type=int, default=9, help="timed calls")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it runs")
    parser.add_argument("--provisional", action="store_true", help="for a machine that is busy")
    parser.add_argument("--again", action="store_true", help="measure anew what is kept, too")
    given = parser.parse_args()
    if given.tokens < 4096 or given.rounds < 1 or given.threads < 1:
        parser.error("tokens should be at least 4096, rounds and threads at least 1")
    return given


def measure(
    cases: dict[str, Callable[[], list[Table]]], finished: Finished, chosen: set[str]
) -> None:
    """Run the chosen cases that are not finished, and print every chosen table."""
    for number, name in enumerate(sorted(chosen), 1):
        tables = finished.get(name)
        print(f"[{number}/{len(chosen)}] {name}" + " (kept)" * bool(tables), file=sys.stderr)
        if not tables:
            begin = time.perf_counter()
            tables = cases[name]()
            tables = finished.put(name, tables, time.perf_counter() - begin)
        print("\n".join(table.markdown() for table in tables), flush=True)


def main() -> int:
    """See the module."""
    given = arguments()
    torch.set_num_threads(1 if given.provisional else given.threads)
    tokens, rounds = (QUICK_TOKENS, 1) if given.quick else (given.tokens, given.rounds)
    settings = Settings(tokens, rounds, given.provisional)
    finished = Finished(hardware(), settings)
    cases = all_cases(settings)
    chosen = {name for name in cases if name.split()[0] in given.only}
    for name in chosen if given.again else ():
        finished.forget(name)
    print(header(settings))
    try:
        with torch.no_grad():
            measure(cases, finished, chosen)
    except KeyboardInterrupt:
        done = sum(bool(finished.get(name)) for name in chosen)
        print(f"interrupted: {done} of {len(chosen)} cases are kept; run again", file=sys.stderr)
        return 130
    if not given.quick:
        tables = [table.markdown() for name in sorted(cases) for table in finished.get(name)]
        print(f"written: {write(settings, tables)}", file=sys.stderr)
    return 0


def write(settings: Settings, tables: list[str]) -> Path:
    """The file of this hardware and context length. What it says of other cases stays, where it was
    measured in the same month with the same versions; else the whole file is put aside.
    """
    slug = re.sub(r"[^a-z0-9]+", "-", hardware().lower()).strip("-")
    if settings.tokens != DEFAULT_TOKENS:
        slug += f"-{settings.tokens}-tokens"
    path = HERE / f"{slug}.md"
    before = path.read_text() if path.exists() else ""
    recorded = before if before.startswith(header(settings)) else ""
    if before and not recorded:
        asides = (path.with_stem(f"{path.stem}-before-{number}") for number in count(1))
        path.rename(next(aside for aside in asides if not aside.exists()))
    # A section a case, by its first line.
    sections = [*re.split(r"(?m)^(?=## )", recorded)[1:], *tables]
    latest = {section.partition("\n")[0]: section.rstrip("\n") + "\n" for section in sections}
    path.write_text("\n".join([header(settings), *latest.values()]))
    return path


if __name__ == "__main__":
    sys.exit(main())
