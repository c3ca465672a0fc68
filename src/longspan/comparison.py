"""Runs side by side; only those that agree in all but the method are compared."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from longspan.statistics import Interval, difference_interval

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import pandas as pd

ALIKE = ["task", "ctx", "model", "pairing"]
Answer = tuple[str, int]
"""Of which example, and which of its answers."""


def shared(
    ours: Mapping[Answer, float], others: Iterable[Mapping[Answer, float]]
) -> tuple[list[float], list[float]]:
    """Our scores and another run's on the examples that both answered, in the same order: means
    over the answers that both gave. The other is the first of those that share most examples with
    us, and of these most answers. Both are empty where none shares any.
    """
    theirs: Mapping[Answer, float] = {}
    common: list[Answer] = []
    for other in others:
        both = sorted(ours.keys() & other.keys())
        if _amount(both) > _amount(common):
            theirs, common = other, both
    return _by_example(ours, common), _by_example(theirs, common)


def first(scores: Mapping[Answer, float], answers: Any) -> Mapping[Answer, float]:
    """Those of the first so many answers to each example; all where that is no number, as in runs
    from before it was written down.
    """
    if not isinstance(answers, int | float) or math.isnan(answers):
        return scores
    return {key: score for key, score in scores.items() if key[1] < answers}


def _amount(answers: Iterable[Answer]) -> tuple[int, int]:
    kept = list(answers)
    return len({example for example, _ in kept}), len(kept)


def _by_example(scores: Mapping[Answer, float], answers: Iterable[Answer]) -> list[float]:
    found = defaultdict(list)
    for answer in answers:
        found[answer[0]].append(scores[answer])
    return [sum(each) / len(each) for each in found.values()]


def pareto(
    runs: pd.DataFrame, cost: str = "work.bytes_per_token", value: str = "score.mean"
) -> pd.DataFrame:
    """The runs that no other run of the same everything but the method beats in both cost and
    value, cheapest first.
    """
    _need(runs, cost, value)
    kept = []
    for _, group in runs.dropna(subset=[cost, value]).groupby(ALIKE, dropna=False):
        best = -math.inf
        for index, row in group.sort_values([cost, value], ascending=[True, False]).iterrows():
            if row[value] > best:
                best = row[value]
                kept.append(index)
    return runs.loc[kept]


def budget_curve(
    runs: pd.DataFrame, budget: str = "set.retrieval_budget", value: str = "score.mean"
) -> pd.DataFrame:
    """`value` with its interval, where it has one, against a setting: one curve a task, ctx, model
    and method.
    """
    _need(runs, budget, value)
    stem = value.removesuffix(".mean")
    bounds = [name for name in (f"{stem}.low", f"{stem}.high") if name in runs and name != value]
    keys = [*ALIKE, "method"]
    columns = [*keys, budget, value, *bounds]
    return runs.dropna(subset=[budget])[columns].sort_values([*keys, budget], ignore_index=True)


def paired_bootstrap(ours: pd.DataFrame, theirs: pd.DataFrame, *, seed: int = 0) -> Interval:
    """The mean difference of two runs' samples (from `read_samples`) with its 95% interval.

    Several answers of an example count as one. Raises ValueError where they share no example.
    """
    pair = shared(_scores(ours), [_scores(theirs)])
    if not pair[0]:
        raise ValueError("the two runs share no example id; compare runs of one task, ctx and seed")
    return difference_interval(*pair, weighed=weighed(ours), seed=seed)


def significance(runs: pd.DataFrame, samples: pd.DataFrame, baseline: str = "full") -> pd.DataFrame:
    """Every run against the baseline of the same everything but the method, with which it shares
    most examples: delta, low, high, n and `verdict` ("better", "worse", "not distinguishable" or
    "no baseline").
    """
    import pandas as pd

    rows = []
    for run in runs.to_dict("records"):
        if run["method"] == baseline:
            continue
        row = {key: run[key] for key in ("task", "ctx", "model", "method", "folder")}
        partners = runs[(runs["method"] == baseline) & (runs["pairing"] == run["pairing"])]
        rows.append({**row, **_compared(run, partners["folder"], samples)})
    return pd.DataFrame(rows)


def _compared(
    run: Mapping[Any, Any], partners: Iterable[str], samples: pd.DataFrame
) -> dict[str, Any]:
    own = samples[samples["folder"] == run["folder"]]
    others = (_scores(samples[samples["folder"] == each]) for each in partners)
    pair = shared(first(_scores(own), run.get("answers")), others)
    if not pair[0]:
        return {"delta": None, "low": None, "high": None, "n": 0, "verdict": "no baseline"}
    delta = difference_interval(*pair, weighed=weighed(own))
    verdict = "better" if delta.mean > 0 else "worse"
    return {
        "delta": delta.mean,
        "low": delta.low,
        "high": delta.high,
        "n": len(pair[0]),
        "verdict": verdict if delta.excludes_zero else "not distinguishable",
    }


def weighed(samples: pd.DataFrame) -> bool:
    """Whether these are of texts that are weighed and not answered (perplexity)."""
    return "meta.nats" in samples and bool(samples["meta.nats"].notna().all())


def _scores(samples: pd.DataFrame) -> dict[Answer, float]:
    keys = zip(map(str, samples["id"]), samples["sample"].tolist(), strict=True)
    return dict(zip(keys, samples["score"].tolist(), strict=True))


def _need(frame: pd.DataFrame, *columns: str) -> None:
    for column in columns:
        if column not in frame:
            raise ValueError(
                f"column {column!r}: not in the table; it has {', '.join(map(str, frame.columns))}"
            )
        if frame[column].isna().all():
            raise ValueError(f"column {column!r}: no run has measured it")
