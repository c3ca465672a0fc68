"""The scores, on cases small enough to do by hand."""

from __future__ import annotations

import pytest

from longspan.tasks.matching import Metric, answer_score, substring_score

COUNTRIES = ("France", "in France", "the country of France")


def test_any_reference_suffices_where_lm_eval_gives_a_share() -> None:
    assert substring_score("France", COUNTRIES, "any") == 100
    assert substring_score("France", COUNTRIES, "all") == pytest.approx(100 / 3)
    assert substring_score("Spain", COUNTRIES, "any") == 0


def test_lm_evals_own_function_agrees_for_all() -> None:
    from lm_eval.tasks.ruler.common_utils import postprocess_pred, string_match_all

    for text in ("France", "they went to the country of FRANCE ", "\x07in\tFrance", "Spain", ""):
        theirs = string_match_all(postprocess_pred([text]), [list(COUNTRIES)])
        assert substring_score(text, COUNTRIES, "all") == pytest.approx(100 * theirs)


def test_control_characters_become_line_breaks() -> None:
    assert substring_score("a\x00b", ("a\nb",), "all") == 100
    assert substring_score("a\x00b", ("ab",), "all") == 0


@pytest.mark.parametrize("metric", ["all", "any", "exact", "prefix"])
@pytest.mark.parametrize(
    ("text", "reference"), [("a\tb", "a\tb"), ("a\nb", "a\r\nb"), ("straße", "STRASSE")]
)
def test_an_answer_that_is_the_reference_scores(text: str, reference: str, metric: Metric) -> None:
    assert answer_score(text, (reference,), metric) == 100


@pytest.mark.parametrize(
    ("text", "metric", "score"),
    [
        (" Paris ", "exact", 100),
        ("paris.", "exact", 0),
        ("PARIS, of course", "prefix", 100),
        ("it is Paris", "prefix", 0),
        ("it is Paris", "any", 100),
        ("it is Paris", "all", 50),
    ],
)
def test_metrics(text: str, metric: Metric, score: float) -> None:
    assert answer_score(text, ("Paris", "Lyon"), metric) == score
