"""Cutting the middle out of a prompt, and where its document ends afterwards."""

from __future__ import annotations

from typing import TYPE_CHECKING

from longspan.tasks.lengths import seam_tokens, style_tokens

if TYPE_CHECKING:
    from longspan.tasks.base import Tokenizer
    from longspan.tasks.prompts import PromptStyle


def fit_middle(
    tokenizer: Tokenizer, context: str, question: str, limit: int | None
) -> tuple[str, str, bool]:
    """(context, question, whether something was cut) with at most `limit` tokens together.

    THUDM's rule: keep the first and the last limit//2 tokens of the raw prompt. Decoding may give
    text that encodes to a few tokens more; then as many fewer are kept. ValueError where `limit`
    leaves nothing.
    """
    if limit is None:
        return context, question, False
    if limit < 2:
        raise ValueError(f"ctx leaves {limit} tokens for the prompt: must be larger")
    ids = tokenizer(context + question).input_ids
    if len(ids) <= limit:
        return context, question, False
    half, head, prompt = limit // 2, "", ""
    while half > 0:
        head = tokenizer.decode(ids[:half], skip_special_tokens=True)
        prompt = head + tokenizer.decode(ids[-half:], skip_special_tokens=True)
        excess = len(tokenizer(prompt).input_ids) - limit
        if excess <= 0:
            break
        half -= -(-excess // 2)
    # The question is at the end; of one that is longer than the half, the half is left.
    split = max(len(head), len(prompt) - len(question))
    return prompt[:split], prompt[split:], True


def prompt_limit(
    tokenizer: Tokenizer, style: PromptStyle, context_tokens: int | None, max_new_tokens: int
) -> int | None:
    """Tokens, the tokenizer's own BOS included, that the context leaves for a prompt beside its
    answer and what its style puts around it; None without a context length.
    """
    if context_tokens is None:
        return None
    around = style_tokens(tokenizer, style) - style_tokens(tokenizer, "raw")
    return context_tokens - max_new_tokens - around - seam_tokens(tokenizer, style)


def smaller(*limits: int | None) -> int | None:
    """The smallest of those that are known."""
    return min((limit for limit in limits if limit is not None), default=None)
