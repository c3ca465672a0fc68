"""avg@n, pass@k and maj@k against brute force and hand-made cases."""

from __future__ import annotations

from itertools import combinations
from math import sqrt

import pytest

from longspan.tasks.sampling_metrics import (
    Outcome,
    default_ks,
    majority,
    pass_at_k,
    sampling_metrics,
)


def same(answer: str, other: str) -> bool:
    return float(answer) == float(other)


def outcomes(*answers: str | None, gold: str = "7") -> list[Outcome]:
    return [Outcome(a is not None and same(a, gold), a, finished=True) for a in answers]


@pytest.mark.parametrize("n", range(1, 8))
def test_pass_at_k_equals_brute_force(n: int) -> None:
    for right in range(n + 1):
        answers = [True] * right + [False] * (n - right)
        for k in range(1, n + 1):
            drawn = list(combinations(answers, k))
            assert pass_at_k(n, right, k) == pytest.approx(sum(map(any, drawn)) / len(drawn))


@pytest.mark.parametrize(("n", "right", "k"), [(4, 1, 5), (4, 1, 0), (4, 5, 1), (4, -1, 1)])
def test_impossible_numbers_are_refused(n: int, right: int, k: int) -> None:
    with pytest.raises(ValueError, match=f"={k}: must be 1 to n_sampling={n}|right={right}"):
        pass_at_k(n, right, k)


def test_the_majority_counts_equal_answers_together() -> None:
    assert majority(outcomes("7", "7.0", "8"), same)
    assert not majority(outcomes("8", "8.0", "7"), same)
    assert majority(outcomes("7", "8"), same)  # a tie: the first seen
    assert not majority(outcomes("8", "7"), same)
    assert majority(outcomes(None, None, "7"), same)  # no vote without an answer
    assert not majority(outcomes(None, None), same)


def test_metrics_of_two_problems_by_hand() -> None:
    problems = {"a": outcomes("7", "7", "8", None), "b": outcomes("8", "8", "7", "9")}
    problems["a"][3] = Outcome(right=False, answer=None, finished=False)
    metrics = sampling_metrics(problems, 4, [2, 4], same)
    assert metrics["avg@4"] == pytest.approx(100 * (2 / 4 + 1 / 4) / 2)
    assert metrics["avg@4_se"] == pytest.approx(100 * (0.25 / sqrt(2)) / sqrt(2))
    assert metrics["pass@2"] == pytest.approx(100 * ((1 - 1 / 6) + (1 - 3 / 6)) / 2)
    assert metrics["pass@4"] == 100
    assert metrics["maj@4"] == 50
    assert metrics["unfinished_rate"] == 100 / 8
    assert metrics["unparsed_rate"] == 100 / 8
    assert metrics["problems"] == 2


def test_problems_that_lack_answers_are_counted_and_left_out() -> None:
    metrics = sampling_metrics({"a": outcomes("7", "7"), "b": outcomes("8")}, 2, [2], same)
    assert (metrics["problems"], metrics["problems_incomplete"]) == (1, 1)
    assert metrics["avg@2"] == 100
    none = sampling_metrics({"b": outcomes("8")}, 2, [2], same)
    assert none == {"problems": 0, "problems_incomplete": 1}


def test_default_ks() -> None:
    assert [default_ks(n) for n in (1, 2, 3, 4, 6, 8)] == [
        *([], [2], [2, 3], [2, 4], [2, 4, 6], [2, 4, 8])
    ]
    assert "maj@1" not in sampling_metrics({"a": outcomes("7")}, 1, [], same)
