"""Macro averages: their mean by hand, their interval by hand and by simulation."""

from __future__ import annotations

import numpy as np
import pytest

from longspan.tasks.averages import macro_average, with_interval


def test_categories_weigh_alike_and_data_sets_within_them() -> None:
    nested = [[[100.0, 0.0], [30.0, 30.0, 30.0]], [[10.0, 20.0]]]
    mean, half = macro_average(nested)
    assert mean == pytest.approx(((50 + 30) / 2 + 15) / 2)
    # Variances of the means: 2500, 0, 25, weighed by 1/16, 1/16 and 1/4.
    parts = [2500 / 16, 0.0, 25 / 4]
    freedom = sum(parts) ** 2 / (parts[0] ** 2 / 1 + parts[2] ** 2 / 1)
    assert 1 < freedom < 2
    assert half == pytest.approx(12.7062 * sum(parts) ** 0.5)


def test_what_is_not_known_has_no_interval() -> None:
    assert macro_average([[[50.0]]]) == (50.0, None)
    assert macro_average([[[50.0, 60.0], [50.0]]]).half is None
    assert with_interval("x", [[[50.0, 50.0, 50.0]]]) == {"x": 50.0}
    assert set(with_interval("x", [[[300 / 11] * 3]])) == {"x"}  # their mean is another number


@pytest.mark.parametrize("sizes", [(2,), (5,), (3, 3), (3, 20), (4, 4, 4, 4)])
def test_the_interval_covers_the_truth(sizes: tuple[int, ...]) -> None:
    rng = np.random.default_rng(len(sizes))
    hits = 0
    for _ in range(2000):
        nested = [[list(rng.normal(50, 5, n)) for n in sizes]]
        found = with_interval("x", nested)
        hits += found["x_low"] <= 50 <= found["x_high"]
    assert hits / 2000 >= 0.92  # Welch and Satterthwaite are near it, not exact
