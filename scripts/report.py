"""One page of a results folder: tables with intervals, Pareto fronts, curves, ledgers, heat maps.

    python scripts/report.py results/ --out report.html       # a file that needs no network
    python scripts/report.py results/ --text                  # on the terminal
    python scripts/report.py results/ --table board.csv --table board.tex --table board.md

What cannot be read is left out and named. Exit codes: 0 done, 1 the disk is full or the reader is
gone, 2 nothing to report or a wrong name.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from longspan.errors import exit_code

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(argv: Sequence[str]) -> int:
    """Write what was asked for; report.html where nothing was."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", nargs="?", default="results", help="a folder of runs")
    parser.add_argument("--out", type=Path, help="the page (default: report.html)")
    parser.add_argument("--text", action="store_true", help="print the tables instead")
    parser.add_argument(
        "--table", action="append", default=[], help="all tables as .csv, .md or .tex"
    )
    arguments = parser.parse_args(argv)
    return exit_code(partial(_report, arguments))


def _report(arguments: argparse.Namespace) -> int:
    from longspan.report.gather import gather

    book = gather(arguments.results)
    if arguments.text:
        from rich.console import Console

        from longspan.report.terminal import show

        show(book, Console())
    for name in arguments.table:
        from longspan.export import save
        from longspan.report.groups import grouped
        from longspan.report.tables import frame

        save(frame(grouped(book)), name)
        print(f"wrote {name}")
    if arguments.out or not (arguments.text or arguments.table):
        from longspan.report.page import page

        out = arguments.out or Path("report.html")
        out.write_text(page(book), encoding="utf-8")
        print(f"wrote {out}: {len(book.entries)} runs, {len(book.left_out)} left out")
    for line in book.left_out if not arguments.text else ():
        print(f"left out: {line}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
