"""What each option of the wave index is worth, on one and the same queries. See README.md.

python experiments/wave_ablations/study.py --out experiments/wave_ablations
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from longspan.methods.oracle_topk import OracleTopK
from longspan.methods.oracle_topp import OracleTopP
from longspan.methods.retroinfer import RetroInfer
from longspan.studies.study import begin
from longspan.studies.trace import Read, replay

if TYPE_CHECKING:
    from collections.abc import Sequence

    from longspan.methods.base import Method

PAPER = RetroInfer()
VARIANTS: dict[str, Method] = {
    "the paper's": PAPER,
    "no estimation": replace(PAPER, estimation="none"),
    "gaussian estimation": replace(PAPER, estimation="gaussian"),
    "tail": replace(PAPER, tail="segment_mean"),
    "gaussian, tail": replace(PAPER, estimation="gaussian", tail="segment_mean"),
    "estimation 8.2%": replace(PAPER, estimation_budget=0.082),
    "estimation 8.2%, tail": replace(PAPER, estimation_budget=0.082, tail="segment_mean"),
    "estimation 98.2%": replace(PAPER, estimation_budget=0.982),
    "vote sized": replace(PAPER, vote="sized"),
    "vote unmet": replace(PAPER, vote="unmet"),
    "vote max": replace(PAPER, vote="max"),
    "global assignment": replace(PAPER, final_assignment="global"),
    "seeding mixed": replace(PAPER, seeding="mixed"),
    "seeding mixed, 8 rounds": replace(PAPER, seeding="mixed", kmeans_rounds=8),
    "seeding farthest": replace(PAPER, seeding="farthest"),
    "seeding farthest, 8 rounds": replace(PAPER, seeding="farthest", kmeans_rounds=8),
    "groups of 32": replace(PAPER, clusters_per_group=32),
    "groups of 16": replace(PAPER, clusters_per_group=16),
    "groups of 16, slack 1.2": replace(PAPER, clusters_per_group=16, group_slack=1.2),
    "4 rounds": replace(PAPER, kmeans_rounds=4),
    "segments of 2k": replace(PAPER, segment_tokens=2048),
    "8 tokens a cluster": replace(PAPER, tokens_per_cluster=8),
    "32 tokens a cluster": replace(PAPER, tokens_per_cluster=32),
    "retrieval 5%": replace(PAPER, retrieval_budget=0.05),
    "retrieval 10%": replace(PAPER, retrieval_budget=0.1),
    "retrieval 20%": replace(PAPER, retrieval_budget=0.2),
    "coverage 0.8": replace(PAPER, coverage=0.8),
    "coverage 0.9": replace(PAPER, coverage=0.9),
    "coverage 0.95": replace(PAPER, coverage=0.95),
    "exact top 1.8%": OracleTopK(),
    "exact top 10%": OracleTopK(budget=0.1),
    "exact mass 0.9": OracleTopP(coverage=0.9),
}
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


def main(arguments: Sequence[str]) -> None:
    """Replay what is missing, write the table."""
    study, sizes = begin(__file__, __doc__, Sizes(), arguments)
    run = study.run(task=sizes.task, ctx=sizes.ctx, samples=sizes.examples)

    def unit(number: int) -> list[dict[str, Any]]:
        traces = Read(run.model, run.examples[number], sizes.steps).traces(sizes.steps)
        return [
            {"variant": name, "example": number, "layer": layer, **replay(method, trace)}
            for layer, trace in enumerate(traces)
            for name, method in VARIANTS.items()
        ]

    with torch.inference_mode():
        frame = study.rows(range(len(run.examples)), unit, model=run.model)
    shown = frame.groupby("variant", sort=False).mean(numeric_only=True).reset_index()
    shares = ["exact", "estimated", "mass", "error"]
    shown[shares] *= 100
    about = f"{run.task.label}, {sizes.ctx} tokens, {sizes.examples} examples, {sizes.steps} steps"
    study.table(
        frame.round(5), about, {"Means over layers": shown[list(COLUMNS)].rename(columns=COLUMNS)}
    )


if __name__ == "__main__":
    main(sys.argv[1:])
