"""What each option of the wave index is worth, on one and the same queries. See README.md.

python experiments/wave_ablations/study.py --out experiments/wave_ablations
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch

from longspan.methods.full import Full
from longspan.methods.oracle_topk import OracleTopK
from longspan.methods.oracle_topp import OracleTopP
from longspan.methods.retroinfer import RetroInfer
from longspan.methods.retroinfer_paper import RetroInferPaper
from longspan.studies.scored import compared, scored
from longspan.studies.study import Study, begin, launch
from longspan.studies.trace import Read, replay

if TYPE_CHECKING:
    from collections.abc import Sequence

    from longspan.methods.base import Method

DEFAULT = RetroInfer()
BASE = replace(DEFAULT, retrieval_budget=0.018, min_clusters=1, tolerance=0.0)
"""The paper's budget alone, which the other variants differ from: a tolerance would make up for
much of what they lose."""
CHOICES: dict[str, Method] = {
    "the default": DEFAULT,
    "retrieval 1.8%": replace(DEFAULT, retrieval_budget=0.018),
    "no least number": replace(DEFAULT, min_clusters=1),
    "1.8% alone": BASE,
    "1.8% alone, no outliers": replace(BASE, outlier_budget=0.0),
    "1.8% alone, estimation by clusters": replace(BASE, estimation="clusters"),
    "1.8% alone, vote sum": replace(BASE, vote="sum"),
    "1.8% alone, even seeds": replace(BASE, seeding="even"),
    "the paper's": RetroInferPaper(),
}
VARIANTS: dict[str, Method] = {
    **CHOICES,
    "tolerance 0.001": replace(DEFAULT, tolerance=0.001),
    "tolerance 0.005": replace(DEFAULT, tolerance=0.005),
    "tolerance 0.02": replace(DEFAULT, tolerance=0.02),
    "tolerance 0": replace(DEFAULT, tolerance=0.0),
    **{
        f"1.8% alone, {name}": method
        for name, method in {
            "no estimation": replace(BASE, estimation="none"),
            "tail": replace(BASE, tail="segment_mean"),
            "estimation 8.2%": replace(BASE, estimation_budget=0.082),
            "estimation 8.2%, tail": replace(BASE, estimation_budget=0.082, tail="segment_mean"),
            "estimation 98.2%": replace(BASE, estimation_budget=0.982),
            "vote unmet": replace(BASE, vote="unmet"),
            "vote max": replace(BASE, vote="max"),
            "vote sized": replace(BASE, vote="sized"),
            "farthest seeds": replace(BASE, seeding="farthest"),
            "global assignment": replace(BASE, final_assignment="global", outlier_budget=0.0),
            "groups of 32": replace(BASE, clusters_per_group=32),
            "groups of 16": replace(BASE, clusters_per_group=16),
            "groups of 16, slack 1.2": replace(BASE, clusters_per_group=16, group_slack=1.2),
            "4 rounds": replace(BASE, kmeans_rounds=4),
            "8 rounds": replace(BASE, kmeans_rounds=8),
            "segments of 2k": replace(BASE, segment_tokens=2048),
            "outliers 1%": replace(BASE, outlier_budget=0.01),
            "outliers 4%": replace(BASE, outlier_budget=0.04),
            "8 tokens a cluster": replace(BASE, tokens_per_cluster=8),
            "32 tokens a cluster": replace(BASE, tokens_per_cluster=32),
            "retrieval 5%": replace(BASE, retrieval_budget=0.05),
            "retrieval 10%": replace(BASE, retrieval_budget=0.1),
            "retrieval 20%": replace(BASE, retrieval_budget=0.2),
        }.items()
    },
    "exact top 1.8%": OracleTopK(),
    "exact top 10%": OracleTopK(budget=0.1),
    "exact mass 0.9": OracleTopP(coverage=0.9),
}
FULL = ("full", "full")
KL = "KL, millinats"
"""Of the next token's distribution from full attention's."""
COLUMNS = {
    "variant": "variant", "exact": "read exactly %", "estimated": "estimated %",
    "mass": "attention read %", "error": "output error %", "bias": "bias of ln mass",
}  # fmt: skip


@dataclass(frozen=True)
class Sizes:
    """Defaults of the command line."""

    task: str = "ruler_niah_multikey_1"
    ctx: int = 8192
    examples: int = 1
    steps: int = 16
    scored: tuple[str, ...] = (
        "ruler_vt",
        "ruler_niah_multikey_1",
        "ruler_niah_multiquery",
        "ruler_niah_multivalue",
    )
    """Tasks that are answered with each of the choices."""
    answers: int = 24
    """Examples of each of them."""


def replayed(study: Study, sizes: Sizes) -> pd.DataFrame:
    """Every variant on the queries of full attention."""
    run = study.run(task=sizes.task, ctx=sizes.ctx, samples=sizes.examples)

    def unit(number: int) -> list[dict[str, Any]]:
        traces = Read(run.model, run.examples[number], sizes.steps).traces(sizes.steps)
        return [
            {"variant": name, "example": number, "layer": layer, **replay(method, trace)}
            for layer, trace in enumerate(traces)
            for name, method in VARIANTS.items()
        ]

    return study.rows(range(len(run.examples)), unit, model=run.model)


def answered(study: Study, sizes: Sizes) -> pd.DataFrame:
    """Scores of the choices, and of full attention, and how far each expects another next token."""
    methods = {FULL: Full(), **{("choice", name): each for name, each in CHOICES.items()}}
    runs = [study.run(task=each, ctx=sizes.ctx, samples=sizes.answers) for each in sizes.scored]
    return study.rows(
        [(task, number) for task in range(len(runs)) for number in range(sizes.answers)],
        lambda unit: scored(runs[unit[0]], unit[1], methods, None, sizes.steps, expected=True),
        model=runs[0].model,
    )


def main(arguments: Sequence[str]) -> None:
    """Measure what is missing, write the tables."""
    study, sizes = begin(__file__, __doc__, Sizes(), arguments)
    with torch.inference_mode():
        frame, answers = replayed(study, sizes), answered(study, sizes)
    shown = frame.groupby("variant", sort=False).mean(numeric_only=True).reset_index()
    shares = ["exact", "estimated", "mass", "error"]
    shown[shares] *= 100
    tables = {"Means over layers": shown[list(COLUMNS)].rename(columns=COLUMNS)}
    for task, each in answers.groupby("task", sort=False):
        told = compared(each, FULL, "to full attention")
        told[KL] = 1000 * told["kl"]
        tables[f"Scores, {task}"] = told[["value", "score", "to full attention", KL]]
    about = (
        f"{sizes.task}, {sizes.ctx} tokens, {sizes.examples} examples, {sizes.steps} steps;"
        f" scores of {sizes.answers} examples a task"
    )
    study.table(pd.concat([frame.round(5), answers]), about, tables)


if __name__ == "__main__":
    sys.exit(launch(main))
