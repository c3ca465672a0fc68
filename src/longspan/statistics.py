"""Intervals that a small sample deserves; scores are on 0..100.

Bootstrap percentile intervals with three corrections, because benchmark runs are short and their
scores sit at the edges: the percentiles are widened to a t interval's (Hesterberg 2015, "expanded
percentile"); of few samples the interval holds Student's too; and where all samples agree, so that
both would claim certainty, the bound is a proportion's, as that of answers that are right or wrong.
"""

from __future__ import annotations

from statistics import NormalDist
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

Z95 = NormalDist().inv_cdf(0.975)
FEW = 10
"""Samples below which resamples, which never leave their range, say too little."""
ROUNDING = 1e-12
"""The share of a score that sums and differences lose."""


class Interval(NamedTuple):
    """A mean with its 95% interval."""

    mean: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether a difference with this interval can be told from none."""
        return self.low > 0 or self.high < 0

    def written(self, sign: str = "") -> tuple[str, str]:
        """("+1.5", "[+0.2, +2.9]") with `sign` "+", or without; with as many digits as tell from
        zero what can be told from it, four at most.
        """
        told = [min(map(abs, self))] if self.excludes_zero else list(map(abs, self))
        digits = next((d for d in range(1, 4) if any(round(x, d) for x in told)), 4)
        digits = digits if any(self) else 1
        mean, low, high = (f"{x:{sign}.{digits}f}" for x in self)
        return mean, f"[{low}, {high}]"


def mean_interval(scores: Sequence[float], *, seed: int = 0, resamples: int = 10_000) -> Interval:
    """The mean score with its 95% interval: Wilson where every score is 0 or 100 or all are equal,
    else bootstrap.

    Raises ValueError for no scores.
    """
    import numpy as np

    values = np.asarray(scores, dtype=float)
    if values.size == 0:
        raise ValueError("scores is empty; an interval needs at least one sample")
    mean = float(values.mean())
    if np.isin(values, (0.0, 100.0)).all() or alike(scores, scores):
        return Interval(mean, *wilson(mean, values.size))
    low, high = _percentiles(values, seed, resamples)
    return Interval(mean, max(low, 0.0), min(high, 100.0))


def difference_interval(
    ours: Sequence[float],
    theirs: Sequence[float],
    *,
    weighed: bool = False,
    seed: int = 0,
    resamples: int = 10_000,
) -> Interval:
    """The mean of ours - theirs on the same samples with its 95% interval (paired bootstrap).

    Where every difference is the same, the interval allows for the share of samples that n cannot
    exclude to be as unlike as can be (Clopper and Pearson's bound): it takes six that agree to tell
    a difference from none. Not so for scores of texts that are `weighed`, of which none goes from
    right to wrong: theirs is Student's, without width, but of one sample, which has none. Raises
    ValueError for lengths that differ or are zero.
    """
    import numpy as np

    if len(ours) != len(theirs) or not len(ours):
        raise ValueError(
            f"a paired comparison needs the same samples twice; got {len(ours)} and {len(theirs)}"
        )
    values = np.asarray(ours, dtype=float) - np.asarray(theirs, dtype=float)
    mean = float(values.mean())
    same = np.ptp(values) == 0 if weighed else alike(values.tolist(), [*ours, *theirs])
    if same and weighed and values.size > 1:
        return Interval(mean, mean, mean)
    if same:
        unlike = 1 - 0.025 ** (1 / values.size)
        return Interval(mean, mean - unlike * (mean + 100), mean + unlike * (100 - mean))
    low, high = _percentiles(values, seed, resamples)
    return Interval(mean, max(low, -100.0), min(high, 100.0))


def alike(values: Sequence[float], scores: Sequence[float]) -> bool:
    """Whether values made of these scores are one but for rounding, as 100/3 - 0 and 100 - 200/3
    are.
    """
    return max(values) - min(values) <= ROUNDING * max(map(abs, scores))


def wilson(mean: float, n: int) -> tuple[float, float]:
    """Wilson's 95% interval of a proportion in percent."""
    share, square = mean / 100, Z95 * Z95
    centre = (share + square / (2 * n)) / (1 + square / n)
    half = Z95 / (1 + square / n) * (share * (1 - share) / n + square / (4 * n * n)) ** 0.5
    low = 0.0 if mean <= 0 else max(0.0, centre - half)
    high = 1.0 if mean >= 100 else min(1.0, centre + half)
    return 100 * low, 100 * high


def needed_samples(
    effect: float, differences: Sequence[float], *, power: float = 0.8, alpha: float = 0.05
) -> int:
    """How many paired samples would show a true mean difference of `effect` points, judged by the
    spread of the differences seen so far.

    Raises ValueError for an effect of 0 or fewer than two differences.
    """
    import numpy as np

    if effect == 0:
        raise ValueError("effect = 0: no number of samples shows it; give the difference in points")
    values = np.asarray(differences, dtype=float)
    if values.size < 2:
        raise ValueError(f"differences has {values.size} entries; the spread needs at least 2")
    normal = NormalDist()
    z = normal.inv_cdf(1 - alpha / 2) + normal.inv_cdf(power)
    return max(2, int(np.ceil((z * float(values.std(ddof=1)) / effect) ** 2)))


def _percentiles(values: NDArray[np.float64], seed: int, resamples: int) -> tuple[float, float]:
    """Of the means of resamples; of few samples, Student's interval where it reaches further."""
    import numpy as np

    rng = np.random.default_rng(seed)
    n = values.size
    means = np.empty(resamples)
    block = max(1, 2_000_000 // n)
    for start in range(0, resamples, block):
        stop = min(start + block, resamples)
        means[start:stop] = values[rng.integers(0, n, (stop - start, n))].mean(axis=1)
    tail = 1 - NormalDist().cdf(t95(n - 1) * (n / (n - 1)) ** 0.5)
    low, high = np.quantile(means, (tail, 1 - tail))
    if n < FEW:
        mean, half = values.mean(), t95(n - 1) * values.std(ddof=1) / n**0.5
        low, high = min(low, mean - half), max(high, mean + half)
    return float(low), float(high)


def t95(freedom: int) -> float:
    """The 97.5% point of Student's t (Cornish-Fisher; exact at one and two degrees of freedom)."""
    if freedom <= 2:
        return (12.7062, 4.3027)[freedom - 1]
    z, v = Z95, float(freedom)
    return (
        z
        + (z**3 + z) / (4 * v)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * v**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * v**3)
    )
