"""The tables of the page, and the same facts as a frame for other programs."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from longspan.report.charts import recall_percent, scanned_percent
from longspan.report.groups import BASELINE, EFFECT
from longspan.report.svg import COLOURS, SHAPES, counted
from longspan.statistics import Interval
from longspan.table import headline

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import pandas as pd

    from longspan.report.groups import Delta, Group, Row

DASH = "–"


@dataclass(frozen=True)
class Column:
    """A column of numbers: where they are, how they are written, what they mean."""

    name: str
    value: Callable[[Row], float | None]
    form: str
    meaning: str


def _fact(name: str, scale: float = 1.0) -> Callable[[Row], float | None]:
    def value(row: Row) -> float | None:
        found = row.entry.number(name)
        return None if found is None else found * scale

    return value


def _together(row: Row) -> float | None:
    """Throughput, where more than one sequence was decoded at a time."""
    return (
        row.entry.number("latency.tokens_per_s")
        if row.entry.facts.get("latency.rows") != 1
        else None
    )


COLUMNS = (
    Column("recall@k %", recall_percent, "{:.1f}", "of the k keys that weigh most, those read"),
    Column("mass %", _fact("recall.recovered_mass", 100), "{:.1f}", "attention recovered"),
    Column("error %", _fact("recall.output_error", 100), "{:.1f}", "of a head's output"),
    Column("KL", _fact("recall.kl"), "{:.4f}", "nats from what full attention expects next"),
    Column(
        "top-1 %",
        _fact("recall.agreement", 100),
        "{:.1f}",
        "likeliest token as by full attention",
    ),
    Column("read %", _fact("work.read_fraction", 100), "{:.1f}", "of the context, token by token"),
    Column("scored %", scanned_percent, "{:.1f}", "keys or centroids scored, of the context"),
    Column("B/token", _fact("work.bytes_per_token"), "B", "read for a token, all layers"),
    Column(
        "ttft s",
        _fact("latency.ttft_s"),
        "{:.2f}",
        "time to the first token, the prompt read and indexed",
    ),
    Column("tokens/s", _together, "{:.0f}", "of all sequences decoded together"),
    Column("ms/token", _fact("latency.ms_per_token"), "{:.2f}", "median of a decode step"),
)


def leaderboard(group: Group) -> str:
    """A sortable HTML table with every run of a group."""
    columns = [c for c in COLUMNS if any(c.value(row) is not None for row in group.rows)]
    base = next((row for row in group.rows if row.entry.method == BASELINE), None)
    baseline = base.entry.number("score.mean") if base else None
    own = [headline(row.entry.metrics) for row in group.rows]
    heads = [
        _head("method", "with the settings that differ"),
        _head("n", "samples"),
        _head("score", "0 to 100, with its 95% interval"),
        _head("against full", "difference on the same samples, with its 95% interval"),
        *(_head(column.name, column.meaning) for column in columns),
        *([_head("its own", "what the task reports beside its score")] if any(own) else []),
    ]
    body = []
    for row, words in zip(group.rows, own, strict=True):
        cells = [
            f'<th scope="row" data-sort="{escape(row.label)}">{swatch(row.colour)}'
            f"{escape(row.label)}</th>",
            _cell(str(row.entry.facts["n"]), row.entry.number("n")),
            _score(row, baseline),
            _against(row.delta, is_base=row.entry.method == BASELINE),
            *(_number(column, row) for column in columns),
            *([f'<td data-sort="{escape(words)}">{escape(words)}</td>'] if any(own) else []),
        ]
        body.append(f'<tr data-run="{escape(row.entry.folder.name)}">{"".join(cells)}</tr>')
    return (
        f'<div class="wide"><table class="sortable"><caption>{escape(group.title)}</caption>'
        f"<thead><tr>{''.join(heads)}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"
    )


def swatch(colour: int) -> str:
    """A method's mark beside its name."""
    shape = SHAPES[colour % len(SHAPES)]
    return (
        f'<svg class="swatch" viewBox="-7 -7 14 14" aria-hidden="true">'
        f'<path class="c{colour % COLOURS}" d="{shape}"/></svg>'
    )


def written(column: Column, value: float | None) -> str:
    """A number as its column writes it."""
    if value is None:
        return DASH
    return counted(value) if column.form == "B" else column.form.format(value)


def told(delta: Delta) -> str:
    """A difference and what can be said of it."""
    text = " ".join(delta.interval.written("+"))
    return text if delta.verdict != "not distinguishable" else f"{text} not distinguishable"


def frame(groups: Sequence[Group]) -> pd.DataFrame:
    """All tables as one, a row a run."""
    import pandas as pd

    return pd.DataFrame([_flat(group, row) for group in groups for row in group.rows])


def _flat(group: Group, row: Row) -> Mapping[str, Any]:
    delta, number = row.delta, row.entry.number
    return {
        "task": group.task, "ctx": group.ctx, "model": group.model, "conditions": group.apart,
        "run": row.label, "n": row.entry.facts["n"],
        **{f"score {end}": number(f"score.{end}") for end in ("mean", "low", "high")},
        "delta": delta.mean if delta else None,
        "delta low": delta.interval.low if delta else None,
        "delta high": delta.interval.high if delta else None,
        "verdict": delta.verdict if delta else None,
        **{column.name: column.value(row) for column in COLUMNS},
    }  # fmt: skip


def _head(name: str, meaning: str) -> str:
    return (
        f'<th scope="col" aria-sort="none"><button type="button" data-tip="{escape(meaning)}" '
        f'aria-label="sort by {escape(name)}: {escape(meaning)}">{escape(name)}</button></th>'
    )


def _cell(shown: str, value: float | None, kind: str = "") -> str:
    sort = "" if value is None else f"{value:.9g}"
    return f'<td class="{kind}" data-sort="{sort}">{shown}</td>'


def _number(column: Column, row: Row) -> str:
    value = column.value(row)
    return _cell(written(column, value), value)


def _score(row: Row, baseline: float | None) -> str:
    mean, low, high = (row.entry.number(f"score.{end}") for end in ("mean", "low", "high"))
    if mean is None or low is None or high is None:
        return _cell(DASH, None)
    rule = "" if baseline is None else f'<path class="base" d="M{baseline:.1f} 0v12"/>'
    drawn = (
        f'<svg class="interval" viewBox="-2 0 104 12" aria-hidden="true"><path class="track" '
        f'd="M0 6h100"/>{rule}<path class="c{row.colour % COLOURS} stretch" '
        f'd="M{low:.1f} 6H{high:.1f}"/><circle class="c{row.colour % COLOURS}" cx="{mean:.1f}" '
        f'cy="6" r="3.4"/></svg>'
    )
    words, bounds = Interval(mean, low, high).written()
    return _cell(f"{drawn}<b>{words}</b> <small>{bounds}</small>", mean, "score")


def _against(delta: Delta | None, *, is_base: bool) -> str:
    if delta is None:
        return _cell("<small>the baseline</small>" if is_base else DASH, 0.0 if is_base else None)
    tip = f"on {delta.n} common samples"
    if delta.needed is not None:
        tip += f"; about {delta.needed:,} would show a difference of {EFFECT:g} point"
    badge = (
        f'<span class="badge same" tabindex="0" data-tip="{escape(tip)}">not distinguishable</span>'
        if delta.verdict == "not distinguishable"
        else f'<span class="badge {delta.verdict}" tabindex="0" data-tip="{escape(tip)}">'
        f"{delta.verdict}</span>"
    )
    mean, bounds = delta.interval.written("+")
    shown = f"<b>{mean}</b> <small>{bounds}</small> {badge}"
    return _cell(shown, delta.mean, "against")
