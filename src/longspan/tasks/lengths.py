"""Token counts of texts and of what a chat template puts around them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from longspan.tasks.base import rendered
from longspan.tasks.prompts import PromptStyle as PromptStyle
from longspan.tasks.prompts import styled

if TYPE_CHECKING:
    from collections.abc import Callable

    from longspan.tasks.base import Tokenizer

_PROBE = "x"
_WORD_END = re.compile(r"(?<=\S)\s")
_WORD_CHARS = 200
"""Of the longest word that a text is not cut in."""
_SEAM_TOKENS = 4
"""What joining a text to another may add."""
_COUNTED_CHARS = 32_768
"""Texts up to here are always counted."""


def count_tokens(tokenizer: Tokenizer, text: str) -> int:
    """Tokens of `text` without special tokens."""
    return len(tokenizer(text, add_special_tokens=False).input_ids)


def uses_template(tokenizer: Tokenizer, chat: bool) -> bool:
    """Whether the prompt will be put into the tokenizer's own chat template."""
    return chat and bool(getattr(tokenizer, "chat_template", None))


def overhead_tokens(tokenizer: Tokenizer, chat: bool) -> int:
    """Tokens that the chat template, or without one the tokenizer's own BOS and EOS, add."""
    inner = count_tokens(tokenizer, _PROBE)
    if not uses_template(tokenizer, chat):
        return len(tokenizer(_PROBE).input_ids) - inner
    return count_tokens(tokenizer, rendered(tokenizer, _PROBE)) - inner


def seam_tokens(tokenizer: Tokenizer, style: PromptStyle) -> int:
    """Tokens to leave free where a chat template is used: joined to it, prompt and prefix may be a
    few more than alone. Without one a prompt is counted as it is read.
    """
    return _SEAM_TOKENS if uses_template(tokenizer, style == "auto") else 0


def style_tokens(tokenizer: Tokenizer, style: PromptStyle) -> int:
    """Tokens that a prompt style adds to a prompt, template and special tokens included."""
    extra = count_tokens(tokenizer, "".join(styled("", _PROBE, style)))
    return overhead_tokens(tokenizer, style == "auto") + extra - count_tokens(tokenizer, _PROBE)


def without_middle(tokenizer: Tokenizer, text: str, limit: int, place: str) -> str:
    """`text` without as much of its middle as leaves `limit` tokens or a few less.

    Cut between characters, as decoding tokens would not give the text back. Raises ValueError
    naming `place` where nothing is left.
    """
    low, high, guess = 0, len(text) // 2, min(2 * max(limit, 0), len(text) // 2)
    while high - low > 1 + low // 200:
        cut = text[:guess] + text[len(text) - guess :]
        tokens = count_tokens(tokenizer, cut) + _SEAM_TOKENS
        low, high = (guess, high) if tokens <= limit else (low, guess)
        likely = guess * max(limit, 1) // max(tokens, 1)
        guess = min(max(likely, low + 1), high - 1) if low else (low + high) // 2
    if not low:
        raise ValueError(
            f"{place}: ctx leaves {limit} tokens for the context, too few; right would be a larger "
            "ctx, or fewer new tokens"
        )
    return text[:low] + text[len(text) - low :]


def leading(tokenizer: Tokenizer, text: str, limit: int) -> str:
    """The beginning of `text`, to the end of a word, of `limit` tokens or up to a hundredth less;
    all of a shorter text, and nothing where not even a word fits.
    """
    low, high, guess = 0, len(text) + 1, min(len(text), 4 * limit)
    while high - low > 1 + low // 200:
        tokens = count_tokens(tokenizer, text[:guess])
        low, high = (guess, high) if tokens <= limit else (low, guess)
        likely = guess * limit // max(tokens, 1) - low // 400
        guess = min(max(likely, low + 1), high - 1)
    if low == len(text):
        return text
    # a language without spaces is cut between any two letters
    ends = [found.start() for found in _WORD_END.finditer(text, max(0, low - _WORD_CHARS), low + 1)]
    return text[: ends[-1] if ends else low]


class LengthOracle:
    """Counts tokens for lm-eval's size searches, which only compare a growing text with a limit.

    A text that even at half again the usual tokens per character stays below `limit` is answered by
    an estimate; every other one is counted. The comparisons come out as if all were counted, at
    a tenth of the time.
    """

    def __init__(self, count: Callable[[str], int], limit: int) -> None:
        self._count = count
        self._limit = limit
        self._chars = 0
        self._tokens = 0

    def __call__(self, text: str) -> int:
        """Tokens of `text`; where it is surely below the limit, about so many."""
        if self._tokens and len(text) > _COUNTED_CHARS:
            rate = self._tokens / self._chars
            more = len(text) - self._chars
            # Texts of one length differ from draw to draw, the longer they are the less.
            spread = 0.02 * (_COUNTED_CHARS / len(text)) ** 0.5
            if (1 + spread) * self._tokens + 1.5 * rate * max(more, 0) < self._limit:
                return round(self._tokens + rate * more)
        self._chars, self._tokens = max(len(text), 1), self._count(text)
        return self._tokens
