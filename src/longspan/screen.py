"""What a run shows while it works, on stderr: bars with the time left, gone when it is done; where
nobody looks, a line now and then.
"""

from __future__ import annotations

from contextlib import contextmanager
from datetime import timedelta
from threading import Event, Thread, Timer
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

    from rich.progress import Task, TaskID

FIRST_S, MOST_S = 10.0, 60.0
"""Until a line without a terminal; the next ones take twice as long each, but at most so long."""
SOON_S = 2.0


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
    """Bars while it is entered, notes at any time. Without a terminal a line in place of the bars,
    from time to time, which says how far the stages are that have begun.
    """

    def __init__(self, console: Console | None = None, first_s: float = FIRST_S) -> None:
        self.console = console or Console(stderr=True)
        self._bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=30),
            Pace(),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )
        self._first_s = first_s
        self._said: set[TaskID] = set()
        self._left = Event()
        self._teller: Thread | None = None

    def __enter__(self) -> Self:
        self._bars.start()
        if not self.console.is_terminal:
            self._left.clear()
            self._teller = Thread(target=self._tell, daemon=True)
            self._teller.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bars.stop()
        if self._teller is not None:
            self._left.set()
            self._teller.join()

    def note(self, text: str) -> None:
        """One line above the bars."""
        self.console.print(text, style="dim", highlight=False, markup=False, soft_wrap=True)

    @contextmanager
    def stage(
        self, what: str, total: int | None = None, *, soon: bool = False
    ) -> Iterator[Callable[[int], None]]:
        """A bar for a stretch of work; call what it gives with the amount that is done. Less than
        before begins it anew. `soon`: without a terminal a first line comes within two seconds.
        """
        bar, most = self._bars.add_task(what, total=total), 0
        first = Timer(SOON_S, self.note, [f"{what} ..."])
        if soon and not self.console.is_terminal:
            first.start()

        def tell(done: int) -> None:
            nonlocal most
            if done < most:
                self._bars.reset(bar, total=total)
            most = done
            self._bars.update(bar, completed=done)

        try:
            yield tell
            outermost = self._bars.tasks[0]
            if bar in self._said and outermost.id == bar:
                self.note(f"{what}: done in {_clock(outermost.elapsed)}")
        finally:
            first.cancel()
            self._bars.remove_task(bar)

    @contextmanager
    def within(self) -> Iterator[Callable[[str, int, int | None], None]]:
        """A bar for what goes on within a stage, one thing after another: call what it gives with
        the name of that, how much of it is done, and of how much.
        """
        bar = self._bars.add_task("", total=None, visible=False)
        (task,) = (each for each in self._bars.tasks if each.id == bar)

        def tell(what: str, done: int, total: int | None) -> None:
            if what != task.description or total != task.total or done < task.completed:
                task.total = total  # rich takes None for as before
                self._bars.reset(bar, description=what, visible=True)
            self._bars.update(bar, completed=done)

        try:
            yield tell
        finally:
            self._bars.remove_task(bar)

    def _tell(self) -> None:
        pause_s, pace = self._first_s, Pace()
        while not self._left.wait(pause_s):
            pause_s = min(2 * pause_s, MOST_S)
            if stages := self._bars.tasks:
                first, *inner = stages
                told = [f"{first.description}: {pace.render(first)}"]
                for each in filter(lambda each: each.visible, inner):
                    at = "" if each.total is None else f": {each.completed:.0f}/{each.total:.0f}"
                    told.append(each.description + at)
                self.note("; ".join(told))
            self._said.update(each.id for each in stages)
