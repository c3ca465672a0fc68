"""One row of a user's JSON file, in any of its spellings, checked field by field."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

from longspan.tasks.matching import Metric
from longspan.tasks.prompts import split_question
from longspan.tasks.references import references
from longspan.tasks.rows import OUTPUTS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_PREFIXES = ("prefix", "answer_prefix", "gen_prefix")
_IDS = ("id", "_id", "index")


@dataclass(frozen=True, slots=True)
class FileRow:
    """A row that is right; None where it leaves something to the task."""

    id: str | None
    context: str
    question: str
    outputs: tuple[str, ...]
    metric: Metric | None
    max_new_tokens: int | None
    prefix: str | None
    chat: bool | None


def parse_row(row: Mapping[str, Any], place: str) -> FileRow:
    """Raises ValueError naming `place` and the field that is missing or wrong, and what would be
    right.
    """
    context, question = _prompt(row, place)
    metric = row.get("metric")
    if metric is not None and metric not in get_args(Metric):
        raise ValueError(
            f"{place}: field 'metric' is {metric!r}; right would be one of "
            f"{', '.join(get_args(Metric))}"
        )
    tokens = _typed(row.get("max_new_tokens"))
    if isinstance(tokens, float) and tokens.is_integer():
        tokens = int(tokens)  # a column of counts with gaps is one of floats in many files
    if tokens is not None and (type(tokens) is not int or tokens < 1):
        raise ValueError(f"{place}: field 'max_new_tokens' is {tokens!r}; right would be a count")
    chat = _typed(row.get("chat"))
    if chat is not None and not isinstance(chat, bool):
        raise ValueError(f"{place}: field 'chat' is {chat!r}; right would be true or false")
    prefix = _first(row, _PREFIXES)
    if prefix is not None and not isinstance(prefix, str):
        raise ValueError(f"{place}: field 'prefix' is {prefix!r}; right would be a text")
    name = _first(row, _IDS)
    return FileRow(
        id=None if name is None else str(name),
        context=context,
        question=question,
        outputs=_outputs(row, place),
        metric=metric,
        max_new_tokens=tokens,
        prefix=prefix,
        chat=chat,
    )


def _typed(value: Any) -> Any:
    """A number or truth value that is written as text, as a cell of a CSV file is; else itself."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value.strip().lower())
    except (ValueError, RecursionError):
        return value


def _prompt(row: Mapping[str, Any], place: str) -> tuple[str, str]:
    """`input` alone is split where its question begins; beside `context` it is the question, beside
    `question` the context. Null is how tables of rows that differ leave a field out.
    """
    for name in ("input", "context", "question"):
        if row.get(name) is not None and not isinstance(row[name], str):
            raise ValueError(f"{place}: field '{name}' is {row[name]!r:.60}; right would be a text")
    context, question, other = (row.get(name) or "" for name in ("context", "question", "input"))
    if not question:
        question = other
    elif not context:
        context = other
    if not question.strip():
        raise ValueError(
            f"{place}: field 'input' (or 'question', beside 'context') is missing or empty"
        )
    if not context:
        return split_question(question) if row.get("input") is not None else ("", question)
    gap = "" if context[-1].isspace() else "\n\n"
    return context + gap, question


def _outputs(row: Mapping[str, Any], place: str) -> tuple[str, ...]:
    found = _first(row, OUTPUTS)
    if found is None:
        raise ValueError(f"{place}: field 'outputs' (or 'answer', 'answers') is missing")
    return references(found, "outputs", place)


def _first(row: Mapping[str, Any], names: Sequence[str]) -> Any:
    return next((row[name] for name in names if row.get(name) is not None), None)
