"""Heat maps: recovered attention by layer and head, scores by needle depth and length."""

from __future__ import annotations

from collections import defaultdict
from html import escape
from typing import TYPE_CHECKING

from longspan.report.svg import STEPS, picture, step_of, text, tipped
from longspan.request import tokens_label

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from longspan.report.gather import Entry
    from longspan.report.groups import Group, Row

LEFT, TOP, CELL = 34, 6, 14


def mass_maps(group: Group) -> list[str]:
    """A map a run, all of a table in one scale; empty where no recall was measured."""
    rows = [row for row in group.rows if row.entry.mass]
    values = [v for row in rows for heads in row.entry.mass for v in heads if v is not None]
    if not values:
        return []
    low = min(0.99, int(min(values) * 100) / 100)
    maps = [_figure(row, _mass_map(row, low), _mass_words(row.entry)) for row in rows]
    return [*maps, _legend(low)]


def _mass_map(row: Row, low: float) -> str:
    """Cells of one colour are one path, so that a model of 80 layers stays a small page."""
    entry = row.entry
    heads = max(len(each) for each in entry.mass)
    wide = max(4, min(CELL, 400 // heads))
    paths, values = defaultdict(list), []
    for level, each in enumerate(entry.mass):
        for head, value in enumerate(each):
            kind = "hn" if value is None else f"h{step_of((value - low) / (1 - low))}"
            paths[kind].append(f"M{LEFT + head * wide} {TOP + level * CELL}h{wide}v{CELL}h-{wide}z")
        values.append(" ".join("" if v is None else f"{v:.4g}" for v in each))
    body = [f'<path class="{kind}" d="{"".join(cells)}"/>' for kind, cells in paths.items()]
    every = max(1, len(entry.mass) // 8)
    for level in range(0, len(entry.mass), every):
        body.append(text(LEFT - 6, TOP + level * CELL + 11, str(entry.layers[level]), "tick end"))
    bottom = TOP + CELL * len(entry.mass)
    for head in range(0, heads, max(1, heads // 8)):
        body.append(text(LEFT + (head + 0.5) * wide, bottom + 14, str(head), "tick middle"))
    body.append('<rect class="cursor" width="0" height="0"/>')
    drawn = picture(LEFT + heads * wide + 6, bottom + 20, body, _mass_words(entry), "cells")
    facts = (
        f'tabindex="0" data-rows="{";".join(",".join(row.split(" ")) for row in values)}" '
        f'data-layers="{escape(",".join(map(str, entry.layers)))}" '
        f'data-box="{LEFT},{TOP},{wide},{CELL}" style="max-width:{(LEFT + heads * wide) * 1.5}px"'
    )
    return drawn.replace("<svg ", f"<svg {facts} ", 1)


def _mass_words(entry: Entry) -> str:
    cells = [
        (value, entry.layers[level], head)
        for level, heads in enumerate(entry.mass)
        for head, value in enumerate(heads)
        if value is not None
    ]
    worst, layer, head = min(cells)
    mean = sum(value for value, _, _ in cells) / len(cells)
    return (
        f"recovered attention by layer (down) and query head (across): mean {100 * mean:.1f}%, "
        f"least {100 * worst:.1f}% at layer {layer} head {head}"
    )


def needle_maps(group: Group) -> list[str]:
    """A map a run of a task that hides one needle; empty for other tasks."""
    return [
        _figure(
            row, _needle_map(row), "score by needle depth in percent (down) and length (across)"
        )
        for row in group.rows
        if row.entry.needles
    ]


def _needle_map(row: Row) -> str:
    cells: Mapping[tuple[int, float], float] = row.entry.needles
    lengths = sorted({length for length, _ in cells})
    depths = sorted({depth for _, depth in cells})
    wide, high, left = 54, 24, 40
    body = []
    for (length, depth), score in sorted(cells.items()):
        x, y = left + lengths.index(length) * wide, TOP + depths.index(depth) * high
        tip = f"{row.label}: {length} tokens, needle at {depth:g}%: score {score:.0f}"
        kind = step_of(score / 100)
        body.append(
            f'<rect class="cell h{kind}" x="{x}" y="{y}" width="{wide - 2}" height="{high - 2}" '
            f"{tipped(tip)}/>"
        )
        shade = "on-dark" if kind >= STEPS // 2 else "on-light"
        body.append(text(x + wide / 2 - 1, y + 15, f"{score:.0f}", f"tick middle {shade}"))
    for number, depth in enumerate(depths):
        body.append(text(left - 6, TOP + number * high + 15, f"{depth:g}", "tick end"))
    bottom = TOP + high * len(depths)
    for number, length in enumerate(lengths):
        name = tokens_label(length)
        body.append(text(left + (number + 0.5) * wide, bottom + 14, name, "tick middle"))
    size = left + wide * len(lengths) + 6
    drawn = picture(size, bottom + 20, body, "score by depth and length", "chart")
    return drawn.replace("<svg ", f'<svg style="max-width:{size * 1.2}px" ', 1)


def _figure(row: Row, drawn: str, words: str) -> str:
    return (
        f'<figure class="map"><figcaption><b>{escape(row.label)}</b> {escape(words)}</figcaption>'
        f"{drawn}</figure>"
    )


def _legend(low: float) -> str:
    boxes: Sequence[str] = [f'<i class="h{step}"></i>' for step in range(STEPS)]
    return f'<p class="legend ramp">{100 * low:.0f}% {"".join(boxes)} 100%</p>'
