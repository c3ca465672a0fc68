"""The table at the end of a run or a sweep."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from longspan.request import tokens_label
from longspan.statistics import Interval

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from longspan.cli import Outcome

DASH = "–"
COUNTED = ("cut", "problems", "problems_incomplete", "contexts")
DIGITS = {**dict.fromkeys(COUNTED, 0), "perplexity": 3, "bits_per_byte": 4}
"""Of metrics that are not told with one."""


def show(outcomes: Sequence[Outcome], *, sweep: bool, console: Console | None = None) -> None:
    """Print one row a job; of several, one that failed says why in a line below."""
    console = console or Console()
    if not console.is_terminal:
        console.width = 400  # a file or a pipe has no edge to fold at
    finished = [each for each in outcomes if each.summary is not None]
    if finished:
        for table in _tables(finished, sweep=sweep, width=console.width):
            console.print(table)
    for each in finished:
        if line := headline((each.summary or {}).get("metrics") or {}):
            name = " ".join(_cell(each, key) for key in LEFT)
            console.print(f"{name}: {line}", highlight=False, soft_wrap=True, markup=False)
    for each in outcomes:
        if each.summary is not None and not sweep:
            console.print(
                f"results in {each.folder}", highlight=False, soft_wrap=True, markup=False
            )
        if len(outcomes) > 1 and each.error is not None:  # of one, stderr has just said it
            what = " ".join(each.overrides) or "the defaults"
            console.print(
                f"not done: {what}: {each.error}", highlight=False, soft_wrap=True, markup=False
            )
    if sweep:
        bad = len(outcomes) - len(finished)
        console.print(
            f"{len(finished)} of {len(outcomes)} jobs done" + (f", {bad} not" if bad else "")
        )


def _tables(outcomes: Sequence[Outcome], *, sweep: bool, width: int) -> list[Table]:
    """One table, or several below each other where the terminal is too narrow for one."""
    names = [*LEFT, *(_varied(outcomes) if sweep else [])]
    columns = {name: [_cell(each, name) for each in outcomes] for name in [*names, *RIGHT]}
    needs = {name: max(map(len, [name, *cells])) + 2 for name, cells in columns.items()}
    tables, room = [list(names)], 0
    for name in RIGHT:
        room += needs[name]
        if sum(needs[each] for each in names) + room > width and tables[-1] != names:
            tables.append(list(names))
            room = needs[name]
        tables[-1].append(name)
    return [_table({name: columns[name] for name in chosen}) for chosen in tables]


def _table(columns: Mapping[str, Sequence[str]]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in columns:
        table.add_column(
            escape(name), justify="right" if name in RIGHT else "left", overflow="fold"
        )
    for row in zip(*columns.values(), strict=True):
        table.add_row(*map(escape, row))
    return table


def _cell(outcome: Outcome, name: str) -> str:
    if name in COLUMNS:
        return COLUMNS[name](outcome.summary or {})
    own = dict(each.split("=", 1) for each in outcome.overrides if "=" in each)
    return own.get(name, DASH)


def _varied(outcomes: Sequence[Outcome]) -> list[str]:
    """The keys in which the jobs of a sweep differ and that no column shows."""
    shown = {"task", "ctx", "model", "method"}
    values: dict[str, set[str]] = {}
    for each in outcomes:
        for override in each.overrides:
            name, _, value = override.partition("=")
            values.setdefault(name, set()).add(value)
    return [name for name, each in values.items() if len(each) > 1 and name not in shown]


def score(summary: dict[str, Any]) -> str:
    """Mean and interval: "87.5 [78.0, 94.1]"."""
    return _interval(summary["score"])


def delta(summary: dict[str, Any]) -> str:
    """The difference to full attention, or that there is none to be told."""
    found = summary["baseline_delta"]
    text = _interval(found, "+")
    return text if found["distinguishable"] in (True, None) else f"{text} not distinguishable"


def headline(metrics: Mapping[str, float | None], most: int = 12) -> str:
    """The task's own metrics in a line, with intervals or standard errors: "avg@8 40.0 ± 8.9".

    Those of parts (`category/sqa`) stay in summary.json where there are others; of many, the first
    ones are shown.
    """
    known = {name: value for name, value in metrics.items() if value is not None}
    named = [name for name in known if not name.endswith(("_low", "_high", "_se"))]
    whole = [name for name in named if "/" not in name]
    if all(name in COUNTED for name in whole):
        whole = named
    parts = []
    for name in whole[:most]:
        digits = DIGITS.get(name, 1)
        text = f"{name} {known[name]:.{digits}f}"
        if f"{name}_low" in known:
            low, high = known[f"{name}_low"], known[f"{name}_high"]
            text += f" [{low:.{digits}f}, {high:.{digits}f}]"
        elif f"{name}_se" in known:
            text += f" ± {known[f'{name}_se']:.{digits}f}"
        parts.append(text)
    if len(whole) > most:
        parts.append(f"and {len(whole) - most} more in summary.json")
    return "   ".join(parts)


def _interval(found: dict[str, Any], sign: str = "") -> str:
    if found["mean"] is None:
        return DASH
    return " ".join(Interval(found["mean"], found["low"], found["high"]).written(sign))


def _at(*path: str, form: str = "{:.1f}", scale: float = 1.0) -> Callable[[dict[str, Any]], str]:
    def cell(summary: dict[str, Any]) -> str:
        value: Any = summary
        for key in path:
            value = value[key]
        return DASH if value is None else form.format(value * scale)

    return cell


Cell = Callable[[dict[str, Any]], str]
LEFT: dict[str, Cell] = {
    "task": lambda summary: str(summary["task"]),
    "ctx": lambda summary: tokens_label(summary["ctx"]),
    "model": lambda summary: str(summary["model"]),
    "method": lambda summary: str(summary["method"]),
}
RIGHT: dict[str, Cell] = {
    "n": lambda summary: str(summary["n"]),
    "score [95%]": score,
    "vs full [95%]": delta,
    "recall@100 %": _at("recall", "at_100", scale=100),
    "mass %": _at("recall", "recovered_mass", scale=100),
    "output error %": _at("recall", "output_error", scale=100),
    "KL nats": _at("recall", "kl", form="{:.4f}"),
    "top-1 same %": _at("recall", "agreement", scale=100),
    "tokens exact": _at("work", "exact_tokens", form="{:.0f}"),
    "estimated": _at("work", "estimated_tokens", form="{:.0f}"),
    "% of ctx": _at("work", "read_fraction", scale=100),
    "first token s": _at("latency", "ttft_s", form="{:.2f}"),
    "ms/token": _at("latency", "ms_per_token", form="{:.2f}"),
}
COLUMNS = {**LEFT, **RIGHT}
