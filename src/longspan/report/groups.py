"""Runs that may share a table: alike in everything but the method."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from longspan import results
from longspan.comparison import first, shared
from longspan.request import tokens_label
from longspan.statistics import Interval, alike, difference_interval

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from longspan.report.gather import Book, Entry

BASELINE = "full"
EFFECT = 1.0
"""Points whose sample count is named where two methods cannot be told apart."""


@dataclass(frozen=True, kw_only=True)
class Delta:
    """A run against full attention on the samples that both have."""

    interval: Interval
    n: int
    verdict: str
    """"better", "worse" or "not distinguishable"."""
    needed: int | None
    """Samples that would show a true difference of EFFECT points; None: cannot be told."""

    @property
    def mean(self) -> float:
        """Of the difference."""
        return self.interval.mean


@dataclass(frozen=True, kw_only=True)
class Row:
    """A run in its table."""

    entry: Entry
    label: str
    """The method, and those of its settings that tell it from its siblings."""
    colour: int
    delta: Delta | None


@dataclass(frozen=True, kw_only=True)
class Group:
    """A table: runs of one pairing, the best score first."""

    task: str
    ctx: str
    model: str
    apart: str
    """What tells it from other tables of the same task, context and model."""
    rows: Sequence[Row]

    @property
    def title(self) -> str:
        """What it is about, in one line."""
        names = [self.task, f"{self.ctx} context", self.model, self.apart]
        return " · ".join(name for name in names if name)

    @cached_property
    def front(self) -> list[Row]:
        """Rows that no other beats in both bytes read and score, cheapest first."""
        import pandas as pd

        frame = pd.DataFrame([dict(row.entry.facts) for row in self.rows])
        try:
            best = results.pareto(frame)["folder"].tolist()
        except ValueError:  # nothing was measured
            return []
        by_folder = {str(row.entry.folder): row for row in self.rows}
        return [by_folder[folder] for folder in best]


def grouped(book: Book) -> list[Group]:
    """The tables of a book, by task, context length and model."""
    tables = defaultdict(list)
    for entry in book.entries:
        tables[entry.facts["pairing"]].append(entry)
    labels, colours = _labels(book.entries), _colours(book.entries)
    same = defaultdict(list)
    for entries in tables.values():
        same[_place(entries[0])].append(entries)
    groups = []
    for place in sorted(same):
        apart = _apart([entries[0].conditions for entries in same[place]])
        for entries, what in zip(same[place], apart, strict=True):
            rows = [
                Row(
                    entry=entry,
                    label=labels[entry.folder],
                    colour=colours[entry.method],
                    delta=_delta(entry, entries),
                )
                for entry in entries
            ]
            task, tokens, model = place
            groups.append(
                Group(
                    task=task, ctx=tokens_label(tokens or None), model=model, apart=what,
                    rows=sorted(rows, key=_rank),
                )
            )  # fmt: skip
    return groups


def _place(entry: Entry) -> tuple[str, int, str]:
    facts = entry.facts
    return str(facts["task"]), int(facts["ctx"] or 0), str(facts["model"])


def _rank(row: Row) -> tuple[float, float, str]:
    mean, cost = row.entry.number("score.mean"), row.entry.number("work.bytes_per_token")
    return (-1.0 if mean is None else -mean, float("inf") if cost is None else cost, row.label)


def _delta(entry: Entry, entries: Iterable[Entry]) -> Delta | None:
    if entry.method == BASELINE:
        return None
    ours = first(entry.scores, entry.facts.get("answers"))
    pair = shared(ours, (each.scores for each in entries if each.method == BASELINE))
    return _told(*pair, weighed=entry.weighed) if pair[0] else None


def _told(ours: list[float], theirs: list[float], *, weighed: bool) -> Delta:
    found = difference_interval(ours, theirs, weighed=weighed)
    differences = [a - b for a, b in zip(ours, theirs, strict=True)]
    same = alike(differences, [*ours, *theirs])
    verdict = "better" if found.mean > 0 else "worse"
    return Delta(
        interval=found,
        n=len(ours),
        verdict=verdict if found.excludes_zero else "not distinguishable",
        needed=None if same else results.needed_samples(EFFECT, differences),
    )


def _labels(entries: Sequence[Entry]) -> dict[Any, str]:
    """Method names with the settings in which runs of one method differ."""
    siblings = defaultdict(list)
    for entry in entries:
        siblings[entry.method].append(entry)
    labels = {}
    for method, runs in siblings.items():
        varied = _varied([run.settings for run in runs])
        for run in runs:
            parts = [f"{name}={_short(run.settings.get(name))}" for name in varied]
            labels[run.folder] = " ".join([method, *parts])
    for twins in _twins(entries, labels):
        rows = {each.facts.get("latency.rows") for each in twins}
        for number, each in enumerate(twins, start=1):
            own = f"rows={each.facts.get('latency.rows')}"
            home = each.folder.resolve().parts[-5:][0]
            labels[each.folder] += f" {own if len(rows) == len(twins) else f'({home}, {number})'}"
    return labels


def _twins(entries: Sequence[Entry], labels: Mapping[Any, str]) -> list[list[Entry]]:
    """The same run in several folders, as a sweep over batch sizes leaves it."""
    same = defaultdict(list)
    for entry in entries:
        same[entry.facts["pairing"], labels[entry.folder]].append(entry)
    return [each for each in same.values() if len(each) > 1]


def _apart(conditions: Sequence[Mapping[str, Any]]) -> list[str]:
    """What tells tables of the same place from one another; data where nothing else does."""
    if len(conditions) == 1:
        return [""]
    varied = _varied(conditions)
    named = [
        ", ".join(f"{name}={_short(each.get(name))}" for name in varied) for each in conditions
    ]
    if len(set(named)) == len(named):
        return named
    return [f"{name} data {number}".strip() for number, name in enumerate(named, start=1)]


def _varied(many: Sequence[Mapping[str, Any]]) -> list[str]:
    names = dict.fromkeys(name for each in many for name in each)
    return [name for name in names if len({repr(each.get(name)) for each in many}) > 1]


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else "null" if value is None else str(value)


def _colours(entries: Sequence[Entry]) -> dict[str, int]:
    """A number a method; full attention is 0."""
    names = sorted({entry.method for entry in entries} - {BASELINE})
    return {BASELINE: 0, **{name: number for number, name in enumerate(names, start=1)}}
