"""The lazy list of needle keys is the sorted list; what is split or cut keeps what it should."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stub_tokenizer import WordTokenizer, tokens

from longspan.tasks.lengths import without_middle
from longspan.tasks.prompts import split_question
from longspan.tasks.ruler_words import SortedPairs, replaced

# Few characters, on both sides of "-" in their order: heads that continue one another.
WORDS = st.lists(st.text("ab-.", min_size=1, max_size=4), max_size=8)


@given(WORDS, WORDS)
def test_pairs_are_the_sorted_pairs(adjectives: list[str], nouns: list[str]) -> None:
    pairs = SortedPairs(adjectives, nouns)
    expected = sorted({f"{adjective}-{noun}" for adjective in adjectives for noun in nouns})
    assert isinstance(pairs, Sequence)
    assert list(pairs) == expected
    assert [pairs[index] for index in range(len(pairs))] == expected
    assert [pairs[-1 - index] for index in range(len(pairs))] == expected[::-1]
    assert pairs[1:-1:2] == expected[1:-1:2]
    for index in (len(expected), -len(expected) - 1):
        with pytest.raises(IndexError):
            pairs[index]


def test_random_choice_draws_alike() -> None:
    adjectives, nouns = ["old", "old-fashioned", "new"], ["b", "a", "fashioned-c"]
    expected = sorted({f"{adjective}-{noun}" for adjective in adjectives for noun in nouns})
    pairs = SortedPairs(adjectives, nouns)
    for seed in range(50):
        assert random.Random(seed).choice(pairs) == random.Random(seed).choice(expected)


@given(st.text("ab ?\n", max_size=60), st.integers(0, 3_000))
def test_context_and_question_are_the_text(text: str, before: int) -> None:
    whole = "w " * before + text
    context, question = split_question(whole)
    assert context + question == whole
    assert len(question) <= 2_000 or not context


@given(st.lists(st.text("abc", min_size=1, max_size=9), min_size=60), st.integers(20, 50))
def test_what_is_cut_fits(words: list[str], limit: int) -> None:
    text = " ".join(words)
    cut = without_middle(WordTokenizer(), text, limit, "here")
    assert tokens(cut) <= limit
    assert text.startswith(cut[: len(cut) // 2])
    assert text.endswith(cut[len(cut) // 2 :])


def test_patches_are_taken_back() -> None:
    class Module:
        value = 1

    def fail() -> None:
        with replaced(Module, value=2):
            assert Module.value == 2
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert Module.value == 1
