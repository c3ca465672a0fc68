"""What is left of a prompt fits, the template around it included."""

from __future__ import annotations

import pytest
from stub_tokenizer import SeamTokenizer, WordTokenizer, tokens

from longspan.tasks.base import rendered
from longspan.tasks.lengths import count_tokens
from longspan.tasks.truncation import fit_middle, prompt_limit

CONTEXT, QUESTION = "word " * 200, "What is it?"


@pytest.mark.parametrize("ctx", range(100, 104))
def test_a_cut_prompt_fits_in_its_template(ctx: int) -> None:
    tokenizer = SeamTokenizer()
    limit = prompt_limit(tokenizer, "auto", ctx, 16)
    context, question, cut = fit_middle(tokenizer, CONTEXT, QUESTION, limit)
    assert cut
    assert ctx - 8 < count_tokens(tokenizer, rendered(tokenizer, context + question)) + 16 <= ctx


def test_without_a_template_all_of_the_context_is_used() -> None:
    tokenizer = WordTokenizer(bos=True)
    limit = prompt_limit(tokenizer, "auto", 101, 16)
    context, question, _ = fit_middle(tokenizer, CONTEXT, QUESTION, limit)
    assert 1 + tokens(context + question) + 16 == 100
