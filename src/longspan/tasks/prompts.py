"""Where the question begins, and what a prompt style puts around a prompt."""

from __future__ import annotations

from typing import Literal

PromptStyle = Literal["auto", "raw", "inst"]
"""auto: the model's chat template where it has one; raw: none; inst: [INST] ... [/INST], whatever
the model.
"""

_OPEN, _CLOSE = "[INST] ", " [/INST]"
_QUESTION_CHARS = 2_000
_LONG_LINE_CHARS = 500


def split_question(text: str) -> tuple[str, str]:
    """(context, question): the question is the last line that starts with "Question:" or has a
    question mark.

    Otherwise it is the last line; of a text that is one long line, its last words. Nothing is lost
    or added.
    """
    window = max(len(text) - _QUESTION_CHARS, 0)
    end = len(text.rstrip())
    mark = text.rfind("\nQuestion:", window)
    if mark < 0:
        mark = text.rfind("\n", window, max(text.rfind("?", window), 0))
    if mark < 0:
        mark = text.rfind("\n", window, end)
    if mark < 0:
        mark = text.find(" ", max(end - _LONG_LINE_CHARS, 0)) if window else -1
    return text[: mark + 1], text[mark + 1 :]


def styled(context: str, question: str, style: PromptStyle) -> tuple[str, str, bool]:
    """(context, question, chat) in the style; chat says whether the model's own template comes
    around it.
    """
    if style == "inst":
        return f"{_OPEN}{context}", f"{question}{_CLOSE}", False
    return context, question, style == "auto"
