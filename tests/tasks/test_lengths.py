"""The length oracle and the sentence splitter change the cost and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from stub_tokenizer import tokens

from longspan.tasks import ruler_haystack, ruler_kinds, ruler_needles, ruler_wordlists
from longspan.tasks.haystack import synthetic_words
from longspan.tasks.lengths import LengthOracle
from longspan.tasks.ruler_generate import generate
from longspan.tasks.ruler_haystack import PrefixSplitter, sentence_spans
from longspan.tasks.ruler_job import Job
from longspan.tasks.ruler_specs import SPECS, RulerName

if TYPE_CHECKING:
    from collections.abc import Iterator

    from longspan.tasks.ruler_job import Splitter


class Counter:
    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, text: str) -> int:
        self.calls += 1
        return tokens(text)


@pytest.mark.parametrize(
    "name", ["niah_single_1", "niah_multikey_1", "niah_multikey_3", "vt", "cwe", "fwe"]
)
def test_the_oracle_gives_the_rows_of_plain_counting(
    name: RulerName, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = SPECS[name]
    essay = "synthetic" if spec.needs_essay else None
    job = Job(name, 24_576, 0, spec.max_new_tokens, 1, 5, haystack=essay)
    oracle, plain = Counter(), Counter()
    fast = generate(job, oracle, lambda _done: None)
    for module in (ruler_kinds, ruler_needles, ruler_wordlists):
        monkeypatch.setattr(module, "LengthOracle", lambda count, _limit: count)
    assert generate(job, plain, lambda _done: None) == fast
    assert oracle.calls < plain.calls


def test_the_oracle_counts_what_may_not_fit() -> None:
    counter = Counter()
    oracle = LengthOracle(counter, 20_000)
    line = "four words a line\n"
    for lines in range(10, 5_200, 10):
        answer, truth = oracle(line * lines), 4 * lines
        assert abs(answer - truth) <= 0.01 * truth + 1
        assert (answer < 20_000) == (truth < 20_000)
        if truth > 19_800:
            assert answer == truth
    assert counter.calls < 300  # of 519; short texts are always counted


@pytest.mark.parametrize("window", [2_500, 50_000])
@pytest.mark.parametrize("text", ["prose", "abbreviations", "no end"])
def test_prefixes_are_split_as_if_alone(
    text: str, window: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ruler_haystack, "_WINDOW_CHARS", window)
    words = synthetic_words(3, 6_000)
    if text == "abbreviations":
        words = [
            "Dr.",
            "A.",
            "Smith",
            "said",
            "3.5",
            "p.m.",
            "was",
            "late!",
            "Was",
            "it?",
            '"No."',
            "(See",
            "p.",
            "4.)",
            "Etc.",
            "etc.",
        ] * 300
    if text == "no end":
        words[400:5_000] = [word.strip(".?!") for word in words[400:5_000]]
    splitter = PrefixSplitter(words, "untrained")
    for count in (5_500, 1, 2, 17, 500, 1_000, 1_001, 3_333, 4_000, len(words)):
        alone = " ".join(words[:count]).strip()
        assert splitter(alone) == [alone[a:b] for a, b in sentence_spans(alone, "untrained")]
    other = "Another text. It is no prefix."
    assert splitter(other) == ["Another text.", "It is no prefix."]


def test_a_slow_machine_does_not_stop_the_splitter(monkeypatch: pytest.MonkeyPatch) -> None:
    """nltk stops a match after a time; a text of any length must not need long at a time."""
    sizes: list[int] = []
    spans = ruler_haystack.sentence_spans

    def watched(text: str, splitter: Splitter) -> Iterator[tuple[int, int]]:
        sizes.append(len(text))
        return spans(text, splitter)

    monkeypatch.setattr(ruler_haystack, "sentence_spans", watched)
    words = synthetic_words(0, 100_000)
    assert " ".join(PrefixSplitter(words, "untrained")(" ".join(words))) == " ".join(words)
    assert max(sizes) <= 50_000


def test_missing_punkt_data_are_named() -> None:
    import nltk

    try:
        nltk.data.find("tokenizers/punkt_tab")
    except LookupError:
        with pytest.raises(ValueError, match=r"task\.splitter=punkt_tab: .* not installed"):
            sentence_spans("A text.", "punkt_tab")
    else:
        assert list(sentence_spans("A text. And Dr. Who.", "punkt_tab")) == [(0, 7), (8, 20)]
