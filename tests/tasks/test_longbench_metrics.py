"""LongBench's metrics against values computed by hand from THUDM's rules."""

from __future__ import annotations

import importlib.util
import sys
from importlib.machinery import ModuleSpec

import pytest

from longspan.tasks.longbench_metrics import code_similarity, longbench_score, plain_metrics

LABELS = ("Place", "Place of birth", "Person", "Number")

CASES = [
    # (data set, prediction, references, score)
    # Articles, case and punctuation do not count: {red, bell} against {red, bell, tower}.
    (
        "hotpotqa",
        "The Red bell.",
        ["a red bell tower"],
        100 * 2 * (2 / 2) * (2 / 3) / (2 / 2 + 2 / 3),
    ),
    ("hotpotqa", "no", ["yes"], 0),
    ("hotpotqa", "in Veldrun", ["Oskarby", "Veldrun"], 100 * 2 * (1 / 2) * 1 / (1 / 2 + 1)),
    ("narrativeqa", "", ["x"], 0),
    # Repeated words count as often as in the reference: 1 of 3, 1 of 1.
    ("qasper", "tea tea tea", ["tea"], 100 * 2 * (1 / 3) / (1 / 3 + 1)),
    # Only the first line; leading newlines go, a leading blank line of blanks does not.
    ("triviaqa", "\n\nVeldrun\nQuestion: what else?", ["Veldrun"], 100),
    ("triviaqa", "  \nVeldrun", ["Veldrun"], 0),
    ("hotpotqa", "Veldrun\nand on", ["Veldrun"], 100 * 2 * (1 / 3) / (1 / 3 + 1)),
    # 钟表匠 is one word, 是 another; the full stop goes.
    ("multifieldqa_zh", "是钟表匠。", ["钟表匠"], 100 * 2 * (1 / 2) / (1 / 2 + 1)),
    # ROUGE-L: the longest common subsequence "a c" of "a b c" and "a c d", of 3 words each.
    ("gov_report", "a b c", ["a c d"], 100 * 2 / 3),
    ("gov_report", "", ["a"], 0),
    ("samsum", "a c d\nb", ["a c d"], 100),
    ("vcsum", "钟表匠工作", ["钟表匠工作"], 100),
    # Labels found in the first line; those inside the right one do not count against it.
    ("trec", "Person", ["Person"], 100),
    ("trec", "Person or Number", ["Person"], 50),
    ("trec", "Place of birth", ["Place of birth"], 100),
    ("trec", "Place of birth", ["Place"], 50),
    ("trec", "Number\nPerson", ["Person"], 0),
    # The share of the numbers written that are right.
    ("passage_count", "4 or 5", ["4"], 50),
    ("passage_count", "four", ["4"], 0),
    ("passage_count", "14", ["4"], 0),
    ("passage_retrieval_en", "Paragraph 12", ["Paragraph 12"], 100),
    ("passage_retrieval_en", "12, 3, 12", ["Paragraph 12"], 100 * 2 / 3),
    ("passage_retrieval_zh", "段落3", ["段落3"], 100),
]


@pytest.mark.parametrize(("dataset", "prediction", "references", "score"), CASES)
def test_scores(dataset: str, prediction: str, references: list[str], score: float) -> None:
    found = longbench_score(dataset, prediction, references, LABELS)
    assert found == pytest.approx(score, abs=1e-3)


@pytest.mark.parametrize(
    ("prediction", "reference", "similarity"),
    [
        ("x = 1", "x = 1", 1),
        ("\n\nx = 1\ny = 2", "x = 1", 1),
        ("# note\n```python\nx = 1", "x = 1", 1),
        ("// note\nabcd", "abxy", 0.5),  # 2 * 2 equal characters of 8
        ("abc", "ab", 0.8),  # 2 * 2 of 5
        ("abcdef", "a", 0.29),  # 2 of 7, rounded to a percent
        ("  \nx = 1", "x = 1", 0.57),  # a line of two blanks is code: 2 * 2 of 7
        ("# only\n# notes", "x = 1", 0),
        ("", "x = 1", 0),
        ("", "", 1),
    ],
)
def test_code_is_compared_line_by_line(prediction: str, reference: str, similarity: float) -> None:
    assert code_similarity(prediction, reference) == pytest.approx(similarity)


def test_code_similarity_is_that_of_fuzzywuzzy_on_difflib() -> None:
    import random
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from fuzzywuzzy import fuzz
    rng = random.Random(0)
    for _ in range(300):
        a, b = ("".join(rng.choices("ab =(", k=rng.randint(1, 40))) for _ in range(2))
        assert code_similarity(a, b) == fuzz.ratio(a, b) / 100


def test_levenshtein_beside_fuzzywuzzy_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec

    def with_levenshtein(name: str, package: str | None = None) -> ModuleSpec | None:
        return ModuleSpec(name, None) if name == "Levenshtein" else real(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", with_levenshtein)
    plain_metrics.cache_clear()
    try:
        with pytest.raises(ValueError, match=r"python-Levenshtein is installed beside fuzzywuzzy"):
            plain_metrics()
    finally:
        plain_metrics.cache_clear()


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval.tasks.longbench", None)
    monkeypatch.setitem(sys.modules, "lm_eval.tasks.longbench.metrics", None)
    plain_metrics.cache_clear()
    try:
        with pytest.raises(ValueError, match=r"pip install 'longspan\[eval\]'"):
            plain_metrics()
    finally:
        plain_metrics.cache_clear()
    monkeypatch.setitem(sys.modules, "math_verify", None)
    from longspan.tasks.answers import number

    with pytest.raises(ValueError, match=r"math-verify .*pip install 'longspan\[eval\]'"):
        number("a number never asked for before: 918273")
