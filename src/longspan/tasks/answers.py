"""What a long answer says in the end: the part after the thoughts, its last box, its letter."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
import threading
from functools import lru_cache
from typing import Final

_TAIL_CHARACTERS: Final = 1000
"""How much of an answer without a box is searched: math-verify's patterns are slow on long text."""
_CHILD_SECONDS: Final = 60

_BOX = re.compile(r"\\f?boxed\s*\{")
# Possessive, as answers may end in thousands of spaces.
_WRAPPED = r"[\s(\[{_$]*+(?:\\(?:text|mathrm|mathbf|textbf|boxed)\s*+\{)?[\s(\[]*+"
_LETTER = rf"{_WRAPPED}([A-D])(?![A-Za-z'])"
_BOXED_LETTER = re.compile(rf"^{_WRAPPED}([A-D])(?![A-Za-z])")
_STATED_LETTER = re.compile(
    r"\b(?:answer|(?:correct|right|best)\s++(?:choice|option))\b"
    r"(?:\s++to\s++(?:the|this)\s++question)?[\s,]*+(?:therefore[\s,]*+)?"
    r"(?:(?:is|(?:would|should|must)\s++be)\b|[:=])[\s,]*+(?:therefore[\s,]*+)?[:=]?\s*+"
    rf"(?:(?:the\s++)?(?:choice|option)\b)?{_LETTER}",
    re.IGNORECASE,
)
_ANSWER_LETTER = re.compile(rf"\banswer\b{_LETTER}", re.IGNORECASE)
_LONE_LETTER = re.compile(r"\(\s*([A-D])\s*\)")
_FIRST_LETTER = re.compile(r"^\s*\(?([A-D])(?:[).:\n]|,(?!\s*[A-D]\b)|\s*$)")
_CHOICE_LETTER = re.compile(rf"\b(?:choice|option)\b{_LETTER}", re.IGNORECASE)
_PUBLISHED = (
    re.compile(r"The correct answer is \(([A-D])\)"),
    re.compile(r"The correct answer is ([A-D])"),
)
"""LongBench v2's patterns, in their order."""


def after_thoughts(text: str) -> str:
    """What follows the last `</think>`; all of the text where there is none."""
    return text.rpartition("</think>")[2]


def opens_thought(beginning: str) -> bool:
    """Whether what stands before an answer leaves it inside a thought: its last `<think>` is not
    closed.
    """
    return beginning.rfind("<think>") > beginning.rfind("</think>")


def thought_is_open(text: str, thinking: bool | None) -> bool:
    """Whether the text ends inside a thought. `thinking` says whether answers begin in one; None:
    where the text opens it.
    """
    if "</think>" in text:
        return False
    return "<think>" in text if thinking is None else thinking


def last_box(text: str) -> str | None:
    r"""The content of the last complete `\boxed{...}`."""
    for match in reversed(list(_BOX.finditer(text))):
        depth = 1
        for end in range(match.end(), len(text)):
            depth += (text[end] == "{") - (text[end] == "}")
            if text[end] in "{}" and text[end - 1] == "\\":  # \{ and \} are printed braces
                depth -= (text[end] == "{") - (text[end] == "}")
            if depth == 0:
                return text[match.end() : end]
    return None


def letter(text: str) -> str | None:
    """The letter A-D an answer chooses: of its last box, else of its last "answer is X", else of
    its last "answer X", else its last "(X)", else one that it begins with, else of its last "option
    X", as options are named to be rejected too; None where there is none.
    """
    text = after_thoughts(text).replace("*", "")
    box = last_box(text)
    if box is not None and (boxed := _BOXED_LETTER.match(box)):
        return boxed.group(1)
    for pattern in (_STATED_LETTER, _ANSWER_LETTER, _LONE_LETTER, _FIRST_LETTER, _CHOICE_LETTER):
        if found := [name for name in pattern.findall(text) if name.isupper()]:
            return str(found[-1])
    return None


def published_letter(text: str) -> str | None:
    """As LongBench v2's `extract_answer`: the first "The correct answer is (X)", else the first
    without brackets; where it finds none, as `letter`.
    """
    said = after_thoughts(text).replace("*", "")
    found = (pattern.search(said) for pattern in _PUBLISHED)
    return next((match.group(1) for match in found if match), None) or letter(text)


def number(text: str, boxed_only: bool = False) -> str | None:
    """The final expression of a solution, in LaTeX: its last box, else what math-verify finds near
    its end; None where nothing parses.
    """
    text = after_thoughts(text)
    box = last_box(text)
    if box is not None:
        return box if _ask("extract", rf"\boxed{{{box}}}") else None
    return None if boxed_only else _ask("extract", text[-_TAIL_CHARACTERS:])


def same_number(answer: str, gold: str) -> bool:
    """Whether math-verify holds two LaTeX expressions for equal."""
    return answer == gold or _ask("equal", f"${answer}$", f"${gold}$") is not None


@lru_cache(maxsize=4096)
def _ask(question: str, *texts: str) -> str | None:
    if threading.current_thread() is threading.main_thread():
        return _answer(question, *texts)
    # math-verify stops runaway algebra by signal.alarm, which only the main thread may set.
    child = [sys.executable, "-m", "longspan.tasks.answers"]
    asked = json.dumps([question, *texts])
    try:
        done = subprocess.run(
            child, input=asked, capture_output=True, text=True, timeout=_CHILD_SECONDS, check=True
        )
    except subprocess.TimeoutExpired:
        return None
    answer: str | None = json.loads(done.stdout)
    return answer


def _answer(question: str, *texts: str) -> str | None:
    """ "extract": the last expression of a text; "equal": "" where the two are, else None."""
    try:
        from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify
    except ImportError as error:
        raise ValueError(
            f"scoring mathematics needs math-verify ({error}): pip install 'longspan[eval]'"
        ) from None
    # It logs the whole answer when one takes too long.
    for name in ("math_verify.parser", "math_verify.grader"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    configs = [LatexExtractionConfig(boxed_match_priority=0), ExprExtractionConfig()]
    parsed = [parse(text, configs) for text in texts]
    if question == "equal":
        answer, gold = parsed
        return "" if verify(gold, answer) else None
    # [expression, its text], or the text alone where it is no expression.
    return str(parsed[0][-1]).strip("*") if parsed[0] else None


if __name__ == "__main__":
    print(json.dumps(_answer(*json.load(sys.stdin))))
