"""What spans tables: methods against tasks, score against context length."""

from __future__ import annotations

from collections import defaultdict
from html import escape
from typing import TYPE_CHECKING

from longspan.report.charts import Chart, Point
from longspan.report.groups import BASELINE
from longspan.report.svg import coloured, step_of
from longspan.report.tables import DASH, swatch
from longspan.request import tokens_label

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from longspan.report.groups import Group, Row

Key = tuple[str, ...]


def matrices(groups: Sequence[Group]) -> list[str]:
    """A table of methods against tasks wherever several tasks ran under the same conditions."""
    alike: dict[Key, list[Group]] = defaultdict(list)
    for group in groups:
        alike[_conditions(group, without=())].append(group)
    return [_matrix(each) for each in alike.values() if len(each) > 1]


def context_curves(groups: Sequence[Group]) -> list[str]:
    """A chart a task whose scores span several context lengths."""
    alike: dict[Key, list[Group]] = defaultdict(list)
    for group in groups:
        if any(row.entry.number("score.mean") is not None for row in group.rows):
            alike[(group.task, *_conditions(group, without=("ctx",)))].append(group)
    drawn = []
    for each in alike.values():
        if len({group.ctx for group in each}) > 1:
            name = " · ".join(part for part in (each[0].task, each[0].model) if part)
            drawn.append(
                f"<figure><figcaption><b>{escape(name)}</b> score against context length"
                f"</figcaption>{_curves(each)}</figure>"
            )
    return drawn


def _conditions(group: Group, *, without: Iterable[str]) -> Key:
    facts = group.rows[0].entry.conditions
    return (group.model, *(f"{k}={v!r}" for k, v in sorted(facts.items()) if k not in without))


def _matrix(groups: Sequence[Group]) -> str:
    names = _names(groups)
    cells: dict[str, dict[str, Row]] = defaultdict(dict)
    for name, group in zip(names, groups, strict=True):
        for row in group.rows:
            cells[row.label][name] = row
    ranked = sorted(cells.items(), key=lambda item: -(_average(item[1], names) or -1.0))
    heads = "".join(
        f'<th scope="col" aria-sort="none"><button type="button">{escape(name)}</button></th>'
        for name in ("method", *names, "average")
    )
    first = groups[0]
    title = f"{first.ctx} context · {first.model} · mean scores by task"
    body = "".join(_matrix_row(label, rows, names) for label, rows in ranked)
    return (
        f'<div class="wide"><table class="sortable matrix"><caption>{escape(title)}</caption>'
        f"<thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _names(groups: Sequence[Group]) -> list[str]:
    """Task names, numbered where two tables of one task have other data."""
    names: list[str] = []
    for number, group in enumerate(groups):
        before = sum(other.task == group.task for other in groups[:number])
        names.append(f"{group.task} ({before + 1})" if before else group.task)
    return names


def _matrix_row(label: str, rows: Mapping[str, Row], names: Sequence[str]) -> str:
    colour = next(iter(rows.values())).colour
    cells = [
        f'<th scope="row" data-sort="{escape(label)}">{swatch(colour)}{escape(label)}</th>',
        *(_matrix_cell(rows.get(name)) for name in names),
    ]
    average = _average(rows, names)
    if average is None:
        cells.append(f'<td data-sort=""><small>{len(rows)} of {len(names)} tasks</small></td>')
    else:
        cells.append(f'<td data-sort="{average:.6g}"><b>{average:.1f}</b></td>')
    return f"<tr>{''.join(cells)}</tr>"


def _matrix_cell(row: Row | None) -> str:
    mean = row.entry.number("score.mean") if row else None
    if row is None or mean is None:
        return f'<td data-sort="">{DASH}</td>'
    same = row.delta is not None and row.delta.verdict == "not distinguishable"
    kind = "same" if same else "" if row.entry.method == BASELINE or not row.delta else "told"
    tip = f"{row.label}: {mean:.1f}, n = {row.entry.facts['n']}"
    if row.delta is not None:
        tip += f", {row.delta.interval.written('+')[0]} against full: {row.delta.verdict}"
    return (
        f'<td class="shade {kind}" data-sort="{mean:.6g}"><span class="h{step_of(mean / 100)}" '
        f'tabindex="0" data-tip="{escape(tip)}">{mean:.1f}{" ≈" if same else ""}</span></td>'
    )


def _average(rows: Mapping[str, Row], names: Sequence[str]) -> float | None:
    """The mean over the tasks; None where one is missing, as it would be no fair average."""
    means = [rows[name].entry.number("score.mean") for name in names if name in rows]
    known = [mean for mean in means if mean is not None]
    return sum(known) / len(known) if len(known) == len(names) else None


def _curves(groups: Sequence[Group]) -> str:
    curves: dict[str, list[Point]] = defaultdict(list)
    for group in groups:
        for row in group.rows:
            tokens, mean = row.entry.number("ctx"), row.entry.number("score.mean")
            if tokens and mean is not None:
                tip = f"{row.label} at {tokens_label(int(tokens))}: {mean:.1f}"
                low, high = (row.entry.number(f"score.{end}") for end in ("low", "high"))
                curves[row.label].append(
                    Point(x=tokens, y=mean, low=low, high=high, tip=tip, colour=row.colour)
                )
    lines = [
        (coloured(curve[0].colour), sorted(curve, key=lambda p: p.x)) for curve in curves.values()
    ]
    return Chart(
        name="score against context length",
        x_name="context in tokens (log)",
        x_ticks=[(tokens, tokens_label(int(tokens))) for tokens in sorted(_lengths(curves))],
        y_name="score",
        points=[point for curve in curves.values() for point in curve],
        lines=[(kind, curve) for kind, curve in lines if len(curve) > 1],
        x_kind="log",
    ).draw()


def _lengths(curves: Mapping[str, Sequence[Point]]) -> set[float]:
    return {point.x for curve in curves.values() for point in curve}
