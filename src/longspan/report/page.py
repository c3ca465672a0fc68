"""The page: one file of HTML that needs nothing else and no network."""

from __future__ import annotations

import re
from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING

from longspan.report import charts, maps, overview, times
from longspan.report.groups import grouped
from longspan.report.tables import leaderboard, swatch

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from longspan.report.gather import Book
    from longspan.report.groups import Group

OPEN = 6
"""Up to that many tables, their heat maps are shown unasked."""


def page(book: Book) -> str:
    """The whole report as HTML."""
    groups = grouped(book)
    samples = sum(len(entry.scores) for entry in book.entries)
    counts = [
        (len(book.entries), "runs"),
        (samples, "samples"),
        (len({group.task for group in groups}), "tasks"),
        (len({entry.method for entry in book.entries}), "methods"),
    ]
    parts = {
        "title": escape(f"longspan: {book.root.resolve().name}"),
        "style": _file("style.css"),
        "script": _file("script.js"),
        "counts": "".join(f"<li><b>{number:,}</b> {name}</li>" for number, name in counts),
        "nav": "".join(
            f'<li><a href="#t{number}">{escape(group.title)}</a></li>'
            for number, group in enumerate(groups)
        ),
        "notes": _notes(book),
        "key": _key(groups),
        "overview": _section(
            "Across tables", [*overview.matrices(groups), _side(overview.context_curves(groups))]
        ),
        "groups": "".join(
            _article(number, group, open_maps=len(groups) <= OPEN)
            for number, group in enumerate(groups)
        ),
    }
    return filled(_file("page.html"), parts)


def filled(template: str, parts: Mapping[str, str]) -> str:
    """The template with its {{names}} replaced, once: what is put in is not looked at again."""
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], template)


def _file(name: str) -> str:
    return files("longspan.report").joinpath(name).read_text(encoding="utf-8")


def _article(number: int, group: Group, *, open_maps: bool) -> str:
    drawn = [
        _figure("Score against bytes read", charts.pareto(group), "The line joins runs that no "
                "other beats in both; whiskers are 95% intervals."),
        _figure("Recall against scanning", charts.recall_curve(group), "Up and left is better: "
                "more of the heaviest keys found, fewer scored."),
        _figure("Milliseconds a token", charts.ledger(group), "The parts are clocked in steps of "
                "their own, after the timed ones.", parts=True),
    ]  # fmt: skip
    needles = maps.needle_maps(group)
    found = [f'<div class="maps">{"".join(needles)}</div>'] if needles else []
    if mass := maps.mass_maps(group):
        shown = " open" if open_maps else ""
        found.append(
            f"<details{shown}><summary>Recovered attention by layer and head</summary>"
            f'<div class="maps">{"".join(mass)}</div></details>'
        )
    hardware = sorted({row.entry.hardware for row in group.rows if row.entry.hardware})
    ran = f'<p class="small">Ran on {escape("; ".join(hardware))}.</p>' if hardware else ""
    unlike = times.warning(group)
    mixed = f'<p class="warn">{escape(unlike)}</p>' if unlike else ""
    return (
        f'<article id="t{number}" data-filter="{escape(_words(group))}">'
        f"<h2>{escape(group.title)}</h2>{leaderboard(group)}{mixed}{_side(drawn)}"
        f"{''.join(found)}{ran}</article>"
    )


def _words(group: Group) -> str:
    return " ".join([group.title, *(row.label for row in group.rows)]).lower()


def _figure(title: str, drawn: str | None, words: str, *, parts: bool = False) -> str:
    if drawn is None:
        return ""
    key = "".join(
        f'<li><i class="p{number}"></i>{escape(name)}</li>'
        for number, name in enumerate(charts.PARTS.values())
    )
    legend = f'<ul class="legend">{key}</ul>' if parts else ""
    return (
        f"<figure><figcaption><b>{escape(title)}</b> {escape(words)}</figcaption>{drawn}{legend}"
        "</figure>"
    )


def _side(drawn: Sequence[str]) -> str:
    shown = "".join(drawn)
    return f'<div class="side">{shown}</div>' if shown else ""


def _section(title: str, parts: Sequence[str]) -> str:
    shown = "".join(parts)
    return f'<section id="across"><h2>{escape(title)}</h2>{shown}</section>' if shown else ""


def _key(groups: Sequence[Group]) -> str:
    names = {row.entry.method: row.colour for group in groups for row in group.rows}
    ordered = sorted(names.items(), key=lambda item: item[1])
    return "".join(
        f'<li><button type="button" data-method="{colour}" aria-pressed="false">'
        f"{swatch(colour)}{escape(name)}</button></li>"
        for name, colour in ordered
    )


def _notes(book: Book) -> str:
    lines = [*(f"Left out: {each}" for each in book.left_out), *book.notes]
    if not lines:
        return ""
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return (
        f'<section class="notes" role="note"><h2>Not in the tables</h2><ul>{items}</ul></section>'
    )
