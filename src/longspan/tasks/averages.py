"""Macro averages of scores with intervals that do not pretend that all samples are alike."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

Z: Final = 1.96
"""Standard errors of a 95% interval."""


def macro_average(nested: Sequence[Sequence[Sequence[float]]]) -> tuple[float, float | None]:
    """Mean over categories of the mean over data sets of the mean score, and its standard error:
    the samples are random, the data sets are not. None where a data set has only one sample.
    """
    means, variances = [], []
    for datasets in nested:
        known = [_mean_and_variance(scores) for scores in datasets]
        means.append(math.fsum(mean for mean, _ in known) / len(known))
        spread = [variance for _, variance in known]
        variances.append(None if None in spread else _sum(spread) / len(spread) ** 2)
    mean = math.fsum(means) / len(means)
    return mean, None if None in variances else math.sqrt(_sum(variances)) / len(variances)


def with_interval(name: str, nested: Sequence[Sequence[Sequence[float]]]) -> dict[str, float]:
    """`name`, and where there are samples enough `name_low` and `name_high`: 95%, in 0..100.

    Scores that are all alike say nothing of their spread: [0, 0] would claim to know.
    """
    mean, error = macro_average(nested)
    if not error:
        return {name: mean}
    low, high = max(0.0, mean - Z * error), min(100.0, mean + Z * error)
    return {name: mean, f"{name}_low": low, f"{name}_high": high}


def _sum(values: Sequence[float | None]) -> float:
    return math.fsum(value for value in values if value is not None)


def _mean_and_variance(scores: Sequence[float]) -> tuple[float, float | None]:
    """Of the mean of scores."""
    mean = math.fsum(scores) / len(scores)
    if len(scores) < 2:
        return mean, None
    spread = math.fsum((score - mean) ** 2 for score in scores) / (len(scores) - 1)
    return mean, spread / len(scores)
