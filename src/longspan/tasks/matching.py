"""RULER's substring scores."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

Match = Literal["all", "any"]
Metric = Literal["all", "any", "exact", "prefix"]

_CONTROL = re.compile(r"\r\n|[\x00-\x1f]")


def clean_answer(text: str) -> str:
    """RULER's preprocessing: control characters become line breaks, the ends are stripped. What is
    looked for in a cleaned text must be cleaned as well.
    """
    return _CONTROL.sub("\n", text.strip()).strip()


def substring_score(text: str, references: Sequence[str], match: Match) -> float:
    """0..100, ignoring case: the share of the references in `text` (all), or whether any is (any).

    lm-eval's own function for the question-answering tasks returns the share there too; the paper's
    is `any`.
    """
    answer = _plain(text)
    found = [_plain(reference) in answer for reference in references]
    return 100.0 * (any(found) if match == "any" else sum(found) / len(found))


def answer_score(text: str, references: Sequence[str], metric: Metric) -> float:
    """0..100: a substring score, or whether the answer is (exact) or begins with (prefix) any
    reference.

    Case and the blanks around do not count.
    """
    if metric in ("all", "any"):
        return substring_score(text, references, metric)
    answer, targets = _plain(text), tuple(_plain(reference) for reference in references)
    return 100.0 * (answer in targets if metric == "exact" else answer.startswith(targets))


def _plain(text: str) -> str:
    return clean_answer(text).casefold()
