"""What the intervals promise, held against draws whose truth is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from longspan import results
from longspan.statistics import difference_interval, mean_interval, needed_samples


def test_the_number_of_samples_named_shows_the_effect_four_times_in_five() -> None:
    rng = np.random.default_rng(3)
    spread, effect = 20.0, 6.0
    n = needed_samples(effect, rng.normal(0, spread, 4000).tolist())
    assert 80 <= n <= 95  # (1.96 + 0.84)^2 * (20 / 6)^2 = 87.2
    told = 0
    for trial in range(400):
        ours = rng.normal(effect, spread, n)
        told += difference_interval(ours, np.zeros(n), seed=trial, resamples=600).excludes_zero
    assert abs(told / 400 - 0.8) <= 0.06


def test_equal_methods_are_told_apart_one_time_in_twenty() -> None:
    rng = np.random.default_rng(5)
    told = 0
    for trial in range(1500):
        skill = rng.random(40)
        ours, theirs = (20.0 * rng.binomial(5, skill) for _ in range(2))
        told += difference_interval(ours, theirs, seed=trial, resamples=600).excludes_zero
    assert abs(told / 1500 - 0.05) <= 0.02


def draw(kind: str, n: int, rng: np.random.Generator) -> np.ndarray:
    if kind == "normal":
        return rng.normal(50, 10, n)
    return 100.0 * (rng.random(n) < 0.7)


@pytest.mark.parametrize("kind", ["normal", "right or wrong"])
@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 8])
def test_few_samples_do_not_tell_equal_methods_apart(kind: str, n: int) -> None:
    rng = np.random.default_rng(n)
    told = 0
    for trial in range(1000):
        ours, theirs = draw(kind, n, rng), draw(kind, n, rng)
        told += difference_interval(ours, theirs, seed=trial, resamples=300).excludes_zero
    assert told / 1000 <= 0.075  # five in a hundred, and what a thousand trials scatter


@pytest.mark.parametrize("n", [2, 3, 5])
def test_the_interval_of_a_few_scores_covers_the_truth(n: int) -> None:
    rng = np.random.default_rng(n)
    hits = 0
    for trial in range(1000):
        low, high = mean_interval(draw("normal", n, rng), seed=trial, resamples=300)[1:]
        hits += low <= 50.0 <= high
    assert hits / 1000 >= 0.93


def test_it_takes_six_samples_that_agree_to_tell_a_difference() -> None:
    verdicts = [difference_interval([0.0] * n, [100.0] * n).excludes_zero for n in range(1, 10)]
    assert verdicts == [False] * 5 + [True] * 4  # as an exact McNemar test at 5%


@pytest.mark.parametrize("n", [10, 100])
def test_the_interval_of_a_short_and_a_long_run_covers_the_truth(n: int) -> None:
    rng = np.random.default_rng(n)
    hits = 0
    for trial in range(1500):
        low, high = mean_interval(25.0 * rng.binomial(4, 0.6, n), seed=trial, resamples=600)[1:]
        hits += low <= 60.0 <= high
    assert abs(hits / 1500 - 0.95) <= 0.02


def test_the_same_outputs_are_not_distinguishable_in_a_table() -> None:
    scores = [100.0, 0.0, 40.0, 60.0] * 5
    alike = {"task": "t", "ctx": 4096, "model": "m", "pairing": "p"}
    runs = pd.DataFrame(
        [{**alike, "method": name, "folder": name} for name in ("full", "same", "worse")]
    )
    samples = pd.DataFrame(
        [
            {"folder": name, "id": f"e{number}", "sample": 0, "score": share * score}
            for name, share in (("full", 1), ("same", 1), ("worse", 0.5))
            for number, score in enumerate(scores)
        ]
    )
    table = results.significance(runs, samples).set_index("method")
    assert table["verdict"].to_dict() == {"same": "not distinguishable", "worse": "worse"}
    assert table.loc["same", "delta"] == 0.0
    assert table["n"].tolist() == [20, 20]
