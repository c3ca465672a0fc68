"""Intervals: coverage by simulation, edges by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from longspan.statistics import difference_interval, mean_interval, needed_samples, wilson


def coverage(draw: Any, truth: float, interval: Any, runs: int = 1500) -> float:
    rng = np.random.default_rng(7)
    hits = 0
    for trial in range(runs):
        low, high = interval(draw(rng), trial)
        hits += low <= truth <= high
    return hits / runs


@pytest.mark.parametrize("n", [20, 50])
def test_interval_of_partial_scores_covers_the_truth_95_percent_of_the_time(n: int) -> None:
    def draw(rng: np.random.Generator) -> Any:
        return 20.0 * rng.binomial(5, 0.7, size=n)  # variable tracking: five answers a sample

    def interval(scores: Any, seed: int) -> Any:
        return mean_interval(scores, seed=seed, resamples=1000)[1:]

    assert abs(coverage(draw, 70.0, interval) - 0.95) <= 0.02


@pytest.mark.parametrize("share", [0.5, 0.9])
def test_interval_of_right_or_wrong_covers_the_truth(share: float) -> None:
    def draw(rng: np.random.Generator) -> Any:
        return 100.0 * (rng.random(50) < share)

    found = coverage(draw, 100 * share, lambda s, seed: mean_interval(s, seed=seed)[1:])
    assert abs(found - 0.95) <= 0.025  # a proportion of 50 takes few values: it cannot be smooth


def test_paired_interval_covers_the_true_difference() -> None:
    def draw(rng: np.random.Generator) -> Any:
        skill = rng.normal(60, 20, size=40)
        return skill + rng.normal(3, 8, size=40), skill

    def interval(pair: Any, seed: int) -> Any:
        return difference_interval(*pair, seed=seed, resamples=1000)[1:]

    assert abs(coverage(draw, 3.0, interval) - 0.95) <= 0.02


def test_a_perfect_short_run_is_not_certain() -> None:
    mean, low, high = mean_interval([100.0] * 10)
    assert (mean, high) == (100.0, 100.0)
    assert low == pytest.approx(72.25, abs=0.01)  # Wilson's bound of 10 of 10


def test_wilson_at_the_edges() -> None:
    assert wilson(0.0, 50)[0] == 0.0
    assert wilson(100.0, 50)[1] == 100.0
    assert wilson(50.0, 100) == pytest.approx((40.38, 59.62), abs=0.01)


def test_the_same_outputs_are_not_distinguishable() -> None:
    delta = difference_interval([80.0, 100.0, 20.0], [80.0, 100.0, 20.0])
    assert delta.mean == 0.0
    assert delta.low < 0 < delta.high
    assert not delta.excludes_zero


def test_differences_that_rounding_alone_tells_apart_are_alike() -> None:
    """Of three references one more each: 100/3 - 0 is not 100 - 200/3 in the last digit."""
    third = 100.0 * (1 / 3)
    ours, theirs = [third, 100.0], [0.0, 100.0 * (2 / 3)]
    delta = difference_interval(ours, theirs)
    assert delta == pytest.approx(difference_interval([third, third], [0.0, 0.0]))
    assert not delta.excludes_zero
    one, other = (third + 200 / 3 + 100) / 3, (100 + third + 200 / 3) / 3 + 1e-14
    assert mean_interval([one, other]) == pytest.approx(mean_interval([one, one]))


def test_weighed_texts_that_agree_have_no_width() -> None:
    """A likelihood goes from nowhere to nowhere at once, unlike an answer; one sample says nothing
    of either.
    """
    ours = [0.31, 0.47, 0.29]
    assert difference_interval(ours, ours, weighed=True) == (0.0, 0.0, 0.0)
    assert difference_interval(ours, ours).high > 70
    one = difference_interval(ours[:1], ours[:1], weighed=True)
    assert one == difference_interval(ours[:1], ours[:1])
    assert one.high > 95
    theirs = [0.30, 0.47, 0.29]
    near = difference_interval(ours, theirs, weighed=True)
    assert near == difference_interval(ours, theirs)
    assert -0.02 < near.low < 0 < near.high < 0.02


def test_a_clear_difference_is_told_apart() -> None:
    ours, theirs = [0.0, 20.0, 10.0, 0.0] * 10, [100.0, 80.0, 90.0, 100.0] * 10
    assert difference_interval(ours, theirs).excludes_zero


def test_one_sample_has_the_widest_interval() -> None:
    assert mean_interval([40.0]).high - mean_interval([40.0]).low > 80


def test_the_interval_is_a_function_of_its_seed() -> None:
    scores = [0.0, 40.0, 60.0, 100.0, 80.0]
    assert mean_interval(scores, seed=1) == mean_interval(scores, seed=1)


def test_needed_samples_grow_with_the_inverse_square_of_the_effect() -> None:
    differences = [10.0, -10.0, 20.0, -20.0, 0.0, 5.0]
    ten, five = needed_samples(10, differences), needed_samples(5, differences)
    assert 3.8 <= five / ten <= 4.2
    with pytest.raises(ValueError, match="effect = 0"):
        needed_samples(0, differences)


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match="same samples twice; got 2 and 1"):
        difference_interval([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match="scores is empty"):
        mean_interval([])
