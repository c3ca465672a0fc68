"""What a run shows while it works: bars with the time left, on stderr, gone when it is done."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType


class Screen:
    """Bars while it is entered, lines at any time. Without a terminal there are lines only."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True)
        self._bars = Progress(
            TextColumn("{task.description}", table_column=None),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
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
