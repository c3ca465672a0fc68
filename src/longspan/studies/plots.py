"""The look of the studies' figures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARKS = "osD^vPX*<>hp"
STYLE: Any = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
}


def panels(count: int, *, width: float = 3.4, height: float = 2.9) -> tuple[Figure, list[Axes]]:
    """A row of empty axes."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width * count, height), layout="constrained")
        axes = [figure.add_subplot(1, count, place + 1) for place in range(count)]
    return figure, axes


def curves(
    axes: Axes,
    frame: pd.DataFrame,
    x: str,
    y: str,
    by: str,
    *,
    order: Sequence[str] | None = None,
) -> None:
    """A line a value of `by`, in the order given or found; `x`, `y` are columns, whose names become
    the axes'.
    """
    names = list(dict.fromkeys(frame[by])) if order is None else list(order)
    for place, name in enumerate(names):
        line = frame[frame[by] == name].sort_values(x)
        if not line.empty:
            mark = MARKS[place % len(MARKS)]
            axes.plot(line[x], line[y], label=str(name), marker=mark, ms=3.5, lw=1.2)
    axes.set(xlabel=x, ylabel=y)


def heat(axes: Axes, frame: pd.DataFrame, row: str, column: str, value: str, **scale: Any) -> None:
    """A map of `value` with its numbers written in."""
    grid = frame.pivot_table(index=row, columns=column, values=value, sort=True)
    axes.grid(visible=False)
    axes.imshow(grid, aspect="auto", cmap="viridis", **scale)
    middle = (grid.to_numpy().max() + grid.to_numpy().min()) / 2
    for y, line in enumerate(grid.to_numpy()):
        for x, number in enumerate(line):
            colour = "black" if number > middle else "white"
            axes.text(x, y, f"{number:.3g}", ha="center", va="center", color=colour, fontsize=7)
    axes.set_xticks(range(grid.shape[1]), [_short(each) for each in grid.columns])
    axes.set_yticks(range(grid.shape[0]), [_short(each) for each in grid.index])
    axes.set(xlabel=column, ylabel=row)


def key(axes: Axes, **place: Any) -> None:
    """Name what is drawn, small, without hiding it."""
    axes.legend(**{"fontsize": 7, "framealpha": 0.6, **place})


def _short(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
