"""The synthetic haystack is seeded, prefix-stable and made of real sentences."""

from __future__ import annotations

import pytest

from longspan.tasks.haystack import haystack_sha256, synthetic_words


def test_same_seed_gives_a_stable_prefix() -> None:
    assert synthetic_words(3, 5000)[:700] == synthetic_words(3, 700)


def test_seeds_differ() -> None:
    first, second = synthetic_words(0, 400), synthetic_words(-1, 400)
    assert haystack_sha256(first) != haystack_sha256(second)


def test_count_is_exact_and_sentences_end() -> None:
    words = synthetic_words(11, 2001)
    assert len(words) == 2001
    assert all(word and " " not in word for word in words)
    stops = sum(word.endswith(".") for word in words)
    assert 2001 / 20 < stops < 2001 / 4


def test_version_1_words_are_pinned() -> None:
    assert haystack_sha256(synthetic_words(0, 1000)) == GOLDEN_SEED_0


def test_negative_count_is_refused() -> None:
    with pytest.raises(ValueError, match="count=-1"):
        synthetic_words(0, -1)


GOLDEN_SEED_0 = "52252251598ec5a253e3adf3673d03eaab5e5137601390ed66e8e7a798bd736e"
