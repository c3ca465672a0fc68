"""Where the question begins, and what a prompt style puts around a prompt."""

from __future__ import annotations

from typing import Literal

PromptStyle = Literal["auto", "raw", "inst"]
"""auto: the model's chat template where it has one; raw: none; inst: [INST] ... [/INST] and
none.
"""

_QUESTION_CHARS = 2_000
_LAST_WORDS_CHARS = 500


def split_question(text: str) -> tuple[str, str]:
    """(context, question), together `text`.

    The question is the last line that starts with "Question:", else the last with a question mark,
    else the last line; of a text that is one long line, its last words.
    """
    window = max(len(text) - _QUESTION_CHARS, 0)
    end = len(text.rstrip())
    mark = text.rfind("\nQuestion:", window)
    if mark < 0 and (asked := text.rfind("?", window)) >= 0:
        mark = text.rfind("\n", window, asked)
    if mark < 0:
        mark = text.rfind("\n", window, end)
    if mark < 0 and window:
        mark = text.find(" ", end - _LAST_WORDS_CHARS)
    return text[: mark + 1], text[mark + 1 :]


def styled(context: str, question: str, style: PromptStyle) -> tuple[str, str]:
    """The two parts with [INST] ... [/INST] around them where that is the style."""
    if style != "inst":
        return context, question
    return f"[INST] {context}", f"{question} [/INST]"
