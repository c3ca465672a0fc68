"""Runs the benchmarks, prints their tables and writes them to a file named after the hardware.

    python kernels/bench/run.py                      all of them
    python kernels/bench/run.py --only dense_decode  one
    python kernels/bench/run.py --quick --no-write   small sizes, to see that they run

A benchmark is a module bench_<name>.py here with `run(settings) -> list[Table]`.
"""

from __future__ import annotations

import argparse
import re
from importlib import import_module
from pathlib import Path

import torch
from report import Settings, hardware, header

HERE = Path(__file__).parent


def names() -> list[str]:
    """The benchmarks there are."""
    return sorted(path.stem.removeprefix("bench_") for path in HERE.glob("bench_*.py"))


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description="Kernel benchmarks; ratios are taken in one run.")
    parser.add_argument("--only", nargs="+", choices=names(), default=names())
    parser.add_argument("--tokens", type=int, default=131_072, help="context length")
    parser.add_argument("--rounds", type=int, default=9, help="timed calls")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it runs")
    parser.add_argument("--provisional", action="store_true", help="for a machine that is busy")
    parser.add_argument("--no-write", action="store_true", help="print only")
    given = parser.parse_args()
    torch.set_num_threads(1 if given.provisional else given.threads)
    settings = Settings(given.tokens, given.rounds, given.quick, given.provisional)
    sections = [header(settings)]
    print(sections[0])
    with torch.no_grad():
        for name in given.only:
            for table in import_module(f"bench_{name}").run(settings):
                sections.append(table.markdown())
                print(sections[-1], flush=True)
    if not given.no_write:
        slug = re.sub(r"[^a-z0-9]+", "-", hardware().lower()).strip("-")
        (HERE / f"{slug}.md").write_text("\n".join(sections))


if __name__ == "__main__":
    main()
