"""Timing side by side, and tables of it."""

from __future__ import annotations

import platform
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import torch

from longspan_kernels.dispatch import build_info, native

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


DEFAULT_TOKENS = 131_072


@dataclass(frozen=True)
class Settings:
    """What a benchmark is told."""

    tokens: int = DEFAULT_TOKENS
    """The context length of those that take one."""
    rounds: int = 9
    provisional: bool = False
    """The machine is shared: one thread, processor time, the best of the calls."""

    @property
    def clock(self) -> Callable[[], float]:
        """What tells the seconds."""
        return time.thread_time if self.provisional else time.perf_counter


@dataclass(frozen=True)
class Table:
    """What a benchmark hands back: `rows` of cells below `head`."""

    title: str
    head: tuple[str, ...]
    rows: list[tuple[str, ...]] = field(default_factory=list)
    notes: tuple[str, ...] = ()

    def markdown(self) -> str:
        """The table as Markdown."""
        lines = [
            f"## {self.title}",
            "",
            f"| {' | '.join(self.head)} |",
            "|---" * len(self.head) + "|",
        ]
        lines += [f"| {' | '.join(row)} |" for row in self.rows]
        return "\n".join([*lines, *("\n" + note for note in self.notes), ""])


def time_together(
    calls: Mapping[str, Callable[[], object]], settings: Settings, rounds: int | None = None
) -> dict[str, float]:
    """Seconds of each call. They take turns, so that whatever disturbs one disturbs all."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range((rounds or settings.rounds) + 1):
        for name, call in calls.items():
            begin = settings.clock()
            call()
            if turn:  # the first turn warms up
                seconds[name].append(settings.clock() - begin)
    pick = min if settings.provisional else median
    return {name: pick(taken) for name, taken in seconds.items()}


def reader(size: int = 1 << 28) -> tuple[Callable[[], object], int]:
    """A call that reads `size` bytes, and `size`: seconds of it give the read bandwidth."""
    words = torch.ones(size // 8, dtype=torch.int64)
    return lambda: native.read(words, torch.get_num_threads(), "native"), size


def hardware() -> str:
    """The processor and how many of its cores are used."""
    name = platform.processor() or platform.machine()
    facts = Path("/proc/cpuinfo")
    if facts.exists():
        known = dict(
            line.replace("\t", "").split(":", 1)
            for line in facts.read_text().split("\n\n")[0].splitlines()
            if ":" in line
        )
        parts = (known.get("model name", name), known.get("cpu family"), known.get("model"))
        name = "{} family {} model {}".format(*(str(part).strip() for part in parts))
    return f"{name}, {torch.get_num_threads()} threads"


def header(settings: Settings) -> str:
    """What the numbers below it were taken on."""
    info = build_info()
    how = "medians of calls that took turns"
    if settings.provisional:
        how = "processor times of one thread, **on a machine shared with other work: provisional**"
    return (
        f"# Kernel benchmarks on {hardware()}\n\ntorch {torch.__version__}, instruction set"
        f" {info['isa']}, compiler {info['compiler']}, {time.strftime('%B %Y')}. Times are {how};"
        " compare ratios, not milliseconds, across machines.\n"
    )
