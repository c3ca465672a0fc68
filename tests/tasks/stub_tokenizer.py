"""A tokenizer without Hugging Face: one token a word."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence


class WordTokenizer:
    """`text.split()`; counts its calls. `bos` puts a special token first, as Llama's does."""

    fingerprint = "words"

    def __init__(self, *, bos: bool = False) -> None:
        self.calls = 0
        self._bos = ["<s>"] if bos else []

    def __call__(self, text: str, *, add_special_tokens: bool = True) -> Any:
        self.calls += 1
        special = self._bos if add_special_tokens else []
        return SimpleNamespace(input_ids=[*special, *text.split()])

    def decode(self, token_ids: Sequence[Any], *, skip_special_tokens: bool = False) -> str:
        return " ".join(str(each) for each in token_ids)


class SeamTokenizer(WordTokenizer):
    """With a chat template that seems to add one token, as an "x" joins its beginning, and to other
    prompts adds three.
    """

    fingerprint = "seams"
    chat_template = "template"

    def __call__(self, text: str, *, add_special_tokens: bool = True) -> Any:
        return super().__call__(
            re.sub(r"<user>(?!x)", "<us er> ", text), add_special_tokens=add_special_tokens
        )

    def apply_chat_template(self, turns: list[dict[str, str]], **_: Any) -> str:
        return f"<user>{turns[0]['content']} <model> "


def tokens(text: str) -> int:
    return len(text.split())
