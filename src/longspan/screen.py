"""What a run shows while it works: bars with the time left, on stderr, gone when it is done."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

    from rich.progress import Task


class Pace(ProgressColumn):
    """How much is done and how long the rest will take, where that is known."""

    def render(self, task: Task) -> Text:
        """See rich."""
        spent = f"{_clock(task.elapsed)} gone"
        if task.total is None:
            return Text(spent)
        return Text(
            f"{task.completed:.0f}/{task.total:.0f}  {spent}, {_clock(task.time_remaining)} left"
        )


def _clock(seconds: float | None) -> str:
    return "?" if seconds is None else str(timedelta(seconds=round(seconds)))


class Screen:
    """Bars while it is entered, lines at any time. Without a terminal there are lines only."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True)
        self._bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=30),
            Pace(),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bars.stop()

    def note(self, text: str) -> None:
        """One line above the bars."""
        self.console.print(text, style="dim", highlight=False, markup=False, soft_wrap=True)

    @contextmanager
    def stage(self, what: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
        """A bar for a stretch of work; call what it gives with the amount that is done."""
        bar = self._bars.add_task(what, total=total)
        try:
            yield lambda done: self._bars.update(bar, completed=done)
        finally:
            self._bars.remove_task(bar)
