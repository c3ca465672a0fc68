"""What is drawn for a table: score against bytes, recall against scanning, time by part."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from longspan.report.svg import Scale, around, coloured, counted, line, mark, picture, text, tipped

if TYPE_CHECKING:
    from collections.abc import Sequence

    from longspan.report.groups import Group, Row

WIDTH, HEIGHT = 560, 330
LEFT, RIGHT, TOP, BOTTOM = 52, 14, 14, 44
PARTS = {
    "search_ms": "search",
    "gather_attend_ms": "gather and attend what was found",
    "attend_ms": "attend the steady zone",
    "fused_ms": "search and attend in one call",
    "update_ms": "append and index",
    "other_ms": "the rest of the model",
}
"""The ledger's entries a token, in the order in which a step does them."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """A run in a chart."""

    x: float
    y: float
    tip: str
    colour: int
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, kw_only=True)
class Chart:
    """Points, and lines through some of them."""

    name: str
    x_name: str
    y_name: str
    points: Sequence[Point]
    lines: Sequence[tuple[str, Sequence[Point]]] = ()
    """(class of the style sheet, points)."""
    x_kind: Literal["linear", "log", "root"] = "linear"
    x_ticks: Sequence[tuple[float, str]] | None = None
    """(value, words); None: round values."""

    def draw(self) -> str:
        """As SVG."""
        x, y = self._scales()
        body = [*self._axes(x, y)]
        for kind, points in self.lines:
            body.append(line([(x(p.x), y(p.y)) for p in points], f"line {kind}"))
        for point in self.points:
            if point.low is not None and point.high is not None:
                ends = [(x(point.x), y(bound)) for bound in (point.low, point.high)]
                body.append(line(ends, f"bar {coloured(point.colour)}"))
        body += [mark(p.colour, x(p.x), y(p.y), p.tip) for p in self.points]
        return picture(WIDTH, HEIGHT, body, self.name, "chart")

    def _scales(self) -> tuple[Scale, Scale]:
        xs = [point.x for point in self.points]
        if self.x_kind == "root":
            left, right = 0.0, max(100.0, *xs)
        else:
            left, right = around(xs, kind=self.x_kind)
        bounds = [v for p in self.points for v in (p.y, p.low, p.high) if v is not None]
        low, high = around(bounds, kind="linear")
        return (
            Scale(left, right, LEFT, WIDTH - RIGHT, self.x_kind),
            Scale(max(low, 0.0), min(high, 100.0), HEIGHT - BOTTOM, TOP),
        )

    def _axes(self, x: Scale, y: Scale) -> list[str]:
        body = []
        for tick in y.ticks():
            body.append(line([(LEFT, y(tick)), (WIDTH - RIGHT, y(tick))], "rule"))
            body.append(text(LEFT - 8, y(tick) + 4, f"{tick:g}", "tick end"))
        for tick, words in self.x_ticks or [(tick, counted(tick)) for tick in x.ticks()]:
            body.append(line([(x(tick), HEIGHT - BOTTOM), (x(tick), HEIGHT - BOTTOM + 4)], "rule"))
            body.append(text(x(tick), HEIGHT - BOTTOM + 18, words, "tick middle"))
        body.append(text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6, self.x_name, "name middle"))
        body.append(
            f'<g transform="translate(13 {(TOP + HEIGHT - BOTTOM) / 2}) rotate(-90)">'
            f"{text(0, 0, self.y_name, 'name middle')}</g>"
        )
        return body


def pareto(group: Group) -> str | None:
    """Score against bytes read a token; None where there are fewer than two runs to show."""
    points = {}
    for row in group.rows:
        cost, mean = row.entry.number("work.bytes_per_token"), row.entry.number("score.mean")
        if cost and mean is not None:
            low, high = (row.entry.number(f"score.{end}") for end in ("low", "high"))
            tip = f"{row.label}: score {mean:.1f} [{low:.1f}, {high:.1f}], {counted(cost)}B a token"
            points[row.label] = Point(
                x=cost, y=mean, low=low, high=high, tip=tip, colour=row.colour
            )
    if len(points) < 2:
        return None
    front = [points[row.label] for row in group.front if row.label in points]
    return Chart(
        name="score against bytes read a token",
        x_name="bytes read a token, all layers (log)",
        y_name="score",
        points=list(points.values()),
        lines=[("front", front)] if len(front) > 1 else [],
        x_kind="log",
    ).draw()


def recall_curve(group: Group) -> str | None:
    """Recall@k against the share of the keys that the search scored; None where not measured."""
    curves = defaultdict(list)
    for row in group.rows:
        scanned, found = scanned_percent(row), recall_percent(row)
        if scanned is not None and found is not None:
            mass = row.entry.number("recall.recovered_mass")
            tip = f"{row.label}: recall {found:.1f}%, {scanned:.2f}% of the keys scored"
            if mass is not None:
                tip += f", {100 * mass:.1f}% of the attention recovered"
            curves[row.entry.method].append(Point(x=scanned, y=found, tip=tip, colour=row.colour))
    points = [point for curve in curves.values() for point in curve]
    if not points:
        return None
    ordered = [sorted(curve, key=lambda p: p.x) for curve in curves.values() if len(curve) > 1]
    return Chart(
        name="recall against the share of the keys scored",
        x_name="keys or centroids scored, % of the context (square root)",
        y_name="recall@k, %",
        points=points,
        lines=[(coloured(curve[0].colour), curve) for curve in ordered],
        x_kind="root",
    ).draw()


def scanned_percent(row: Row) -> float | None:
    """Query-key products of a search in percent of the context."""
    distances, context = (row.entry.number(f"work.{n}") for n in ("distances", "context_tokens"))
    return 100 * distances / context if distances is not None and context else None


def recall_percent(row: Row) -> float | None:
    """Recall@k of whatever k was measured."""
    names = [n for n in row.entry.facts if n.startswith("recall.at_")]
    found = [value for n in names if (value := row.entry.number(n)) is not None]
    return 100 * found[0] if found else None


def ledger(group: Group) -> str | None:
    """Where the milliseconds of a token go, a bar a run; None where no time was taken."""
    rows = [row for row in group.rows if row.entry.number("latency.ms_per_token") is not None]
    if not rows:
        return None
    spent = {row.label: _spent(row) for row in rows}
    longest = max(sum(parts.values()) for parts in spent.values())
    x = Scale(0.0, longest * 1.02, 6, WIDTH - 90)
    body, height = [], 40
    for number, row in enumerate(rows):
        top, left = height * number, 0.0
        body.append(text(6, top + 13, row.label, "tick"))
        for part, each in spent[row.label].items():
            name = PARTS.get(part, "a whole step")
            tip = f"{row.label}: {name} {each:.3g} ms of {sum(spent[row.label].values()):.3g}"
            place, wide = x(left), max(x(left + each) - x(left), 0.5)
            kind = list(PARTS).index(part) if part in PARTS else len(PARTS)
            body.append(
                f'<rect class="part p{kind}" x="{place}" y="{top + 18}" width="{wide:.1f}" '
                f'height="14" {tipped(tip)}/>'
            )
            left += each
        body.append(text(x(left) + 6, top + 29, f"{left:.3g} ms", "tick"))
    return picture(WIDTH, height * len(rows), body, "milliseconds a token by part", "chart")


def _spent(row: Row) -> dict[str, float]:
    found = {name: row.entry.number(f"latency.ledger.{name}") for name in PARTS}
    parts = {name: max(value, 0.0) for name, value in found.items() if value is not None}
    return parts or {"whole": row.entry.number("latency.ms_per_token") or 0.0}
