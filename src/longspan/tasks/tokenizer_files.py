"""Tokenizers across processes: what identifies one, and how a child process gets it."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from longspan.tasks.base import Tokenizer


def fingerprint(tokenizer: Tokenizer) -> str:
    """16 hexadecimal digits that change with the tokens of some text; a tokenizer may bring its own
    as `.fingerprint`.
    """
    own = getattr(tokenizer, "fingerprint", None)
    if isinstance(own, str):
        return own
    text = _backend_json(tokenizer)
    if text is None:
        vocabulary: dict[str, int] = getattr(tokenizer, "get_vocab", dict)()
        text = f"{type(tokenizer).__qualname__} {sorted(vocabulary.items())}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def hand_over(tokenizer: Tokenizer) -> str | None:
    """What a child needs to count tokens; None for a tokenizer that lives in this process only, as
    those written in Python do.
    """
    text = _backend_json(tokenizer)
    return None if text is None else "{" + text


def child_counter(handed: str) -> Callable[[str], int]:
    """In the child: a function that counts the tokens of a text, without special tokens."""
    from tokenizers import Tokenizer as Backend

    backend = Backend.from_str(handed)
    return lambda text: len(backend.encode(text, add_special_tokens=False))


def _backend_json(tokenizer: Any) -> str | None:
    """The JSON of a fast tokenizer from "added_tokens" on: padding and truncation, which change in
    use, come before.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return None
    text: str = backend.to_str()
    return text[text.index('"added_tokens"') :]
