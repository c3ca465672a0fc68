"""Small files of our own in the formats of SQuAD v2 and HotpotQA."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

_TOWNS = ("Arden", "Brock", "Celle", "Dunmore", "Esk", "Farrow", "Glyn", "Hale", "Iver", "Jarrow")
_THINGS = ("bridge", "harbour", "library", "market", "mill", "museum", "school", "station")


def _fact(town: str, thing: str) -> tuple[str, str]:
    """(sentence, year)"""
    year = str(1500 + 37 * _TOWNS.index(town) + 11 * _THINGS.index(thing))
    return f"The {thing} of {town} was opened in {year}, and nobody remembers by whom.", year


def _filler(town: str, number: int) -> str:
    return f"Record {number} of {town} speaks of rain, of wool and of long roads. " * 6


def write_squad(path: Path) -> Path:
    """Ten articles of eight paragraphs, two questions each, one of them without an answer."""
    articles = []
    for town in _TOWNS:
        paragraphs: list[dict[str, Any]] = []
        for number, thing in enumerate(_THINGS):
            sentence, year = _fact(town, thing)
            asked = {
                "question": f"In what year did {town} open its {thing}?",
                "answers": [{"text": year}, {"text": f"in {year}"}, {"text": year}],
                "is_impossible": False,
            }
            unknown = {"question": f"Who built it in {town}?", "answers": [], "is_impossible": True}
            text = f"{sentence} {_filler(town, number)}"
            paragraphs.append({"context": text, "qas": [asked, unknown]})
        articles.append({"title": town, "paragraphs": paragraphs})
    path.write_text(json.dumps({"version": "fake", "data": articles}))
    return path


def write_hotpot(path: Path) -> Path:
    """Twelve questions over two true pages and six others; the last is answered by yes."""
    questions = []
    for number in range(12):
        town, other = _TOWNS[number % 10], _TOWNS[(number + 3) % 10]
        thing = _THINGS[number % 8]
        pages = [
            [f"{place} {each}", [_fact(place, each)[0], " ", _filler(place, number)]]
            for place in (town, other)
            for each in _THINGS[:4] + _THINGS[-4:]
        ]
        asked = f"In what year did the town that is not {other} open its {thing}?"
        answer = "yes" if number == 11 else _fact(town, thing)[1]
        questions.append({"question": asked, "answer": answer, "context": pages})
    path.write_text(json.dumps(questions))
    return path
