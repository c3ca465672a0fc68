"""Macro averages of scores with intervals that do not pretend that all samples are alike."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from longspan.statistics import t95

if TYPE_CHECKING:
    from collections.abc import Sequence


class Average(NamedTuple):
    """A mean, and half the width of its 95% interval, None where that is not known."""

    mean: float
    half: float | None


def macro_average(nested: Sequence[Sequence[Sequence[float]]]) -> Average:
    """Mean over categories of the mean over data sets of the mean score: the samples are random,
    the data sets are not. Student's interval, with Welch and Satterthwaite's degrees of freedom.

    No width where a data set has only one sample, or no scores differ: 0 would claim to know.
    """
    means, errors, freedoms = [], [], []
    for datasets in nested:
        weight = 1 / (len(nested) * len(datasets))
        for scores in datasets:
            means.append(weight * math.fsum(scores) / len(scores))
            if len(scores) > 1:
                errors.append(weight**2 * _variance(scores) / len(scores))
                freedoms.append(len(scores) - 1)
    mean, error = math.fsum(means), math.fsum(errors)
    if len(errors) < len(means) or not error:
        return Average(mean, None)
    shares = [(part / error) ** 2 / free for part, free in zip(errors, freedoms, strict=True)]
    freedom = max(1, math.floor(1 / math.fsum(shares) + 1e-9))
    return Average(mean, t95(freedom) * math.sqrt(error))


def with_interval(name: str, nested: Sequence[Sequence[Sequence[float]]]) -> dict[str, float]:
    """`name`, and where there are samples enough `name_low` and `name_high`: 95%, in 0..100."""
    mean, half = macro_average(nested)
    if half is None:
        return {name: mean}
    return {
        name: mean,
        f"{name}_low": max(0.0, mean - half),
        f"{name}_high": min(100.0, mean + half),
    }


def _variance(scores: Sequence[float]) -> float:
    if min(scores) == max(scores):  # their mean may be another number by rounding
        return 0.0
    mean = math.fsum(scores) / len(scores)
    return math.fsum((score - mean) ** 2 for score in scores) / (len(scores) - 1)
