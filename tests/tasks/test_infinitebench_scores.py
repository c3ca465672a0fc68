"""InfiniteBench's scores: where the authors' rules are not lm-eval's."""

from __future__ import annotations

import sys

import pytest
from rouge_score.rouge_scorer import RougeScorer

from longspan.tasks.infinitebench_scores import check_scorable, infinitebench_score

SUMMARY = "The towns were keeping things.\nA ferryman rang the bells.\nNobody answered him."


def test_summaries_are_compared_by_lines_and_words_as_they_are_written() -> None:
    spoken = "Of the bells\na ferryman rang one.\nThe town keeps things."
    plain = RougeScorer(["rougeLsum"], use_stemmer=False)
    expected = plain.score(SUMMARY, spoken)["rougeLsum"].fmeasure
    for other in (
        RougeScorer(["rougeLsum"], use_stemmer=True).score(SUMMARY, spoken),
        plain.score(SUMMARY, spoken.replace("\n", " ")),
    ):
        assert other["rougeLsum"].fmeasure != pytest.approx(expected)
    score = infinitebench_score("longbook_sum_en", spoken, [SUMMARY], [])
    assert score == pytest.approx(100 * expected)
    assert infinitebench_score("longbook_sum_en", spoken, ["Other.", SUMMARY], []) == score
    assert infinitebench_score("longbook_sum_en", "", [SUMMARY], []) == 0


@pytest.mark.parametrize(
    ("dataset", "answer", "reference", "score"),
    [
        ("longbook_qa_en", "team", "A-team", 0),
        ("longbook_qa_en", "The ATeam.", "A-team", 100),
        ("longbook_qa_en", "\nthe red\nboat", "a red boat!", 100),
        ("longbook_qa_en", "red", "red boat", 200 / 3),
        ("longbook_qa_en", "", "red boat", 0),
        ("longbook_qa_chn", "“张三”", "张三", 100),
        ("longbook_qa_chn", "‘张 三’。", "张三", 100),
        ("longbook_qa_chn", "张", "张三", 200 / 3),
    ],
)
def test_answers_are_normalised_as_the_authors_do(
    dataset: str, answer: str, reference: str, score: float
) -> None:
    found = infinitebench_score(dataset, answer, ["none of it", reference], [])
    assert found == pytest.approx(score)


def test_what_scoring_lacks_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval.tasks.longbench", None)
    monkeypatch.setitem(sys.modules, "lm_eval.tasks.longbench.metrics", None)
    check_scorable(["passkey", "longbook_sum_en"])
    with pytest.raises(ValueError, match=r"pip install 'longspan\[eval\]'"):
        check_scorable(["passkey", "longbook_qa_en"])
