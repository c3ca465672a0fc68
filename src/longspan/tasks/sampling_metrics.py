"""Metrics of problems answered several times: avg@n, pass@k, maj@k, under their honest names.

DeepSeek's "pass@1" is avg@n here; the "pass@1" that RetroInfer's evaluation prints is pass@n.
pass@k is the unbiased estimate of Chen et al. 2021 (arXiv 2107.03374).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


@dataclass(frozen=True, slots=True)
class Outcome:
    """One answer to one problem."""

    right: bool
    answer: str | None
    """What was extracted; None where nothing could be."""
    finished: bool


def pass_at_k(n: int, right: int, k: int) -> float:
    """The chance that at least one of k answers drawn without replacement from n, of which `right`
    are right, is right. ValueError unless 1 <= k <= n and 0 <= right <= n.
    """
    if not 1 <= k <= n:
        raise ValueError(f"pass@k with k={k}: must be 1 to n_sampling={n}")
    if not 0 <= right <= n:
        raise ValueError(f"right={right}: must be 0 to n={n}")
    return 1.0 - math.comb(n - right, k) / math.comb(n, k)


def majority(outcomes: Sequence[Outcome], same: Callable[[str, str], bool]) -> bool:
    """Whether the most frequent extracted answer is right; of equally frequent ones the first seen
    counts, and answers that did not parse have no vote.
    """
    groups: list[list[Outcome]] = []
    for outcome in outcomes:
        if outcome.answer is None:
            continue
        for group in groups:
            if outcome.answer == group[0].answer or same(outcome.answer, group[0].answer or ""):
                group.append(outcome)
                break
        else:
            groups.append([outcome])
    # max returns the first of equals, and groups are in the order of their first answer.
    return bool(groups) and max(groups, key=len)[0].right


def default_ks(n: int) -> list[int]:
    """2, 4, 8, ... up to n, and n; [] where n is 1."""
    powers = [2**i for i in range(1, n.bit_length()) if 2**i < n]
    return [*powers, n] if n > 1 else []


def sampling_metrics(
    problems: Mapping[str, Sequence[Outcome]],
    n: int,
    ks: Sequence[int],
    same: Callable[[str, str], bool],
) -> dict[str, float]:
    """Rates in percent over the problems that have all their n answers, and how many problems those
    are; `_se` is the standard error over problems. Problems with fewer answers are only counted.
    """
    whole = [outcomes[:n] for outcomes in problems.values() if len(outcomes) >= n]
    metrics = {
        "problems": float(len(whole)),
        "problems_incomplete": float(len(problems) - len(whole)),
    }
    if not whole:
        return metrics
    right = [sum(outcome.right for outcome in outcomes) for outcomes in whole]
    for name, values in {
        f"avg@{n}": [count / n for count in right],
        **{f"pass@{k}": [pass_at_k(n, count, k) for count in right] for k in ks},
        **({f"maj@{n}": [float(majority(outcomes, same)) for outcomes in whole]} if n > 1 else {}),
    }.items():
        metrics[name] = 100 * math.fsum(values) / len(values)
        # Values that are all alike say nothing of their spread: a 0 would claim to know.
        if len(set(values)) > 1:
            metrics[f"{name}_se"] = 100 * standard_error(values)
    every = [outcome for outcomes in whole for outcome in outcomes]
    metrics["unfinished_rate"] = 100 * sum(not o.finished for o in every) / len(every)
    metrics["unparsed_rate"] = 100 * sum(o.answer is None for o in every) / len(every)
    return metrics


def standard_error(values: Sequence[float]) -> float:
    """Of the mean of two or more values."""
    mean = math.fsum(values) / len(values)
    spread = math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)
    return math.sqrt(spread / len(values))
