"""The right answers of a row of data: one check for every task that looks for them."""

from __future__ import annotations

from math import isfinite

from longspan.tasks.matching import clean_answer


def references(value: object, name: str, where: str) -> tuple[str, ...]:
    """A text, a number or a list of them, as texts.

    ValueError naming `where` and the field `name` where there is none, or where one is blank (any
    answer would contain it) or is no answer: null, true, NaN, a list.
    """
    items = value if isinstance(value, list) else [value]
    if not items or not all(map(_is_answer, items)):
        raise ValueError(
            f"{where}: field '{name}' is {value!r:.60}; right would be a text or a list of texts, "
            "none of them blank"
        )
    return tuple(map(str, items))


def _is_answer(item: object) -> bool:
    if isinstance(item, str):
        return bool(clean_answer(item))
    return isinstance(item, int | float) and not isinstance(item, bool) and isfinite(item)
