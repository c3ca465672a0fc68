"""Runs side by side; only those that agree in all but the method are compared."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from longspan.statistics import Interval, difference_interval

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

ALIKE = ["task", "ctx", "model", "pairing"]


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
    means = [frame.groupby("id")["score"].mean() for frame in (ours, theirs)]
    common = means[0].index.intersection(means[1].index)
    if not len(common):
        raise ValueError("the two runs share no example id; compare runs of one task, ctx and seed")
    pair = [each.loc[common].tolist() for each in means]
    return difference_interval(*pair, seed=seed)


def significance(runs: pd.DataFrame, samples: pd.DataFrame, baseline: str = "full") -> pd.DataFrame:
    """Every run against the baseline of the same everything but the method: delta, low, high, n and
    `verdict` ("better", "worse", "not distinguishable" or "no baseline").
    """
    import pandas as pd

    rows = []
    for run in runs.to_dict("records"):
        if run["method"] == baseline:
            continue
        row = {key: run[key] for key in ("task", "ctx", "model", "method", "folder")}
        partner = runs[(runs["method"] == baseline) & (runs["pairing"] == run["pairing"])]
        rows.append({**row, **_compared(run, partner, samples)})
    return pd.DataFrame(rows)


def _compared(
    run: Mapping[Any, Any], partner: pd.DataFrame, samples: pd.DataFrame
) -> dict[str, Any]:
    if partner.empty:
        return {"delta": None, "low": None, "high": None, "n": 0, "verdict": "no baseline"}
    ours = samples[samples["folder"] == run["folder"]]
    theirs = samples[samples["folder"] == partner.iloc[0]["folder"]]
    delta = paired_bootstrap(ours, theirs)
    verdict = "better" if delta.mean > 0 else "worse"
    return {
        "delta": delta.mean,
        "low": delta.low,
        "high": delta.high,
        "n": len(set(ours["id"]) & set(theirs["id"])),
        "verdict": verdict if delta.excludes_zero else "not distinguishable",
    }


def _need(frame: pd.DataFrame, *columns: str) -> None:
    for column in columns:
        if column not in frame:
            raise ValueError(
                f"column {column!r}: not in the table; it has {', '.join(map(str, frame.columns))}"
            )
        if frame[column].isna().all():
            raise ValueError(f"column {column!r}: no run has measured it")
