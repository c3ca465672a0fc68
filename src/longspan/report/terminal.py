"""The same tables on a terminal, in several pieces where it is narrow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from rich.markup import escape
from rich.table import Table

from longspan.report import times
from longspan.report.groups import BASELINE, grouped
from longspan.report.tables import COLUMNS, DASH, told, written
from longspan.statistics import Interval
from longspan.table import headline

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from longspan.report.gather import Book
    from longspan.report.groups import Group, Row

BAR = 20
"""Characters of a score's interval."""


class Column(NamedTuple):
    """A column as it is printed."""

    name: str
    justify: Literal["left", "right"]
    cells: Sequence[str]

    @property
    def width(self) -> int:
        """In characters, with the gap to the next."""
        return max(map(len, [self.name, *self.cells])) + 2


def show(book: Book, console: Console) -> None:
    """Print every table, then what was left out."""
    if not console.is_terminal:
        console.width = 400  # a file or a pipe has no edge to fold at
    for group in grouped(book):
        console.print(group.title, style="bold", highlight=False, markup=False)
        for columns in pieces(_columns(group), console.width):
            console.print(_table(columns))
        if unlike := times.warning(group):
            console.print(unlike, style="yellow", highlight=False, markup=False, soft_wrap=True)
        if group.front:
            console.print("* no other run reads as few bytes and scores as well\n", style="dim")
    for line in (*(f"left out: {each}" for each in book.left_out), *book.notes):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def pieces(columns: Sequence[Column], width: int) -> list[list[Column]]:
    """The columns in tables that fit; every table begins with the first column."""
    first, *rest = columns
    found = [[first]]
    for column in rest:
        if len(found[-1]) > 1 and sum(c.width for c in [*found[-1], column]) - 2 > width:
            found.append([first])
        found[-1].append(column)
    return found


def _columns(group: Group) -> list[Column]:
    rows, front = group.rows, {row.label for row in group.front}
    labels = [f"{row.label} *" if row.label in front else row.label for row in rows]
    own = [headline(row.entry.metrics) for row in rows]
    measured = [c for c in COLUMNS if any(c.value(row) is not None for row in rows)]
    return [
        Column("method", "left", labels),
        Column("n", "right", [str(row.entry.facts["n"]) for row in rows]),
        Column("score [95%]", "right", [_score(row) for row in rows]),
        Column("0 to 100", "left", [interval_bar(row) for row in rows]),
        Column("against full [95%]", "left", [_against(row) for row in rows]),
        *(
            Column(each.name, "right", [written(each, each.value(row)) for row in rows])
            for each in measured
        ),
        *([Column("its own", "left", own)] if any(own) else []),
    ]


def _table(columns: Sequence[Column]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        table.add_column(escape(column.name), justify=column.justify, overflow="fold")
    for cells in zip(*(column.cells for column in columns), strict=True):
        table.add_row(*map(escape, cells))
    return table


def _score(row: Row) -> str:
    mean, low, high = (row.entry.number(f"score.{end}") for end in ("mean", "low", "high"))
    if mean is None or low is None or high is None:
        return DASH
    return " ".join(Interval(mean, low, high).written())


def _against(row: Row) -> str:
    if row.entry.method == BASELINE:
        return "the baseline"
    return told(row.delta) if row.delta else DASH


def interval_bar(row: Row) -> str:
    """The interval as a stretch of a line of BAR characters, the mean as a dot."""
    mean, low, high = (row.entry.number(f"score.{end}") for end in ("mean", "low", "high"))
    if mean is None or low is None or high is None:
        return ""
    place = [round(value / 100 * (BAR - 1)) for value in (low, mean, high)]
    letters = ["─" if place[0] <= at <= place[2] else "·" for at in range(BAR)]
    letters[place[1]] = "●"
    return "".join(letters)
