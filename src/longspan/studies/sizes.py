"""The options of a study: what each of them may be, read from the fields of its sizes."""

from __future__ import annotations

import math
import re
from dataclasses import fields
from typing import TYPE_CHECKING, Any, TypeVar

from longspan.request import parse_tokens

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

T = TypeVar("T")


def resized(sizes: T, given: Mapping[str, str | None]) -> T:
    """The sizes, a dataclass of int, float, str and tuples of them, with what is given, by field.

    A whole number is 1 or more, another one is above 0, a text is not empty. A field that may be
    something else says so in its metadata: `least` and `most` of a number, the texts it is `among`.
    Raises ValueError naming the option.
    """
    values = {}
    for each in fields(sizes):  # type: ignore[arg-type]
        value, text = getattr(sizes, each.name), given.get(each.name)
        if text is not None:
            many = isinstance(value, tuple)
            parts = text.split(",") if many else [text]
            kind = value[0] if many else value
            take: Any = _text if isinstance(kind, str) else _number
            read = tuple(take(option(each.name), part, kind, each.metadata) for part in parts)
            value = read if many else read[0]
        values[each.name] = value
    return type(sizes)(**values)


def option(name: str) -> str:
    """As it is typed."""
    return f"--{name.replace('_', '-')}"


def one_of(words: Iterable[str]) -> str:
    """Words to choose from."""
    *most, last = words
    return f"{', '.join(most)} or {last}" if most else last


def _text(name: str, text: str, kind: str, bounds: Mapping[str, Any]) -> str:
    among = bounds.get("among", ())
    if text in among or (not among and (text or not kind)):
        return text
    right = one_of(among) if among else "a name"
    raise ValueError(f"{name} = {text!r}: right would be {right}")


def _number(name: str, text: str, kind: float, bounds: Mapping[str, Any]) -> float:
    whole = isinstance(kind, int)
    value = _whole(text) if whole else _finite(text)
    least, most = bounds.get("least", 1 if whole else 0), bounds.get("most", math.inf)
    above = not whole and "least" not in bounds
    if value is not None and least <= value <= most and not (above and value == least):
        return value
    right = "a whole number, 40 or 8k" if whole else "a number"
    if least != -math.inf:
        right += f", above {least}" if above else f", {least} or more"
    if most != math.inf:
        right += f", {most} at most"
    raise ValueError(f"{name} = {text if value is None else value!r}: right would be {right}")


def _whole(text: str) -> int | None:
    if re.fullmatch(r"0|-\d+", text):
        return int(text)
    try:
        return parse_tokens("", text)
    except ValueError:
        return None


def _finite(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
