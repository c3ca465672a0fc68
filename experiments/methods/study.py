"""Which method finds and recovers most with the tokens that it reads. See README.md.

python experiments/methods/study.py --out experiments/methods
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from longspan.methods.full import Full
from longspan.methods.h2o import H2O
from longspan.methods.hybrid import Hybrid
from longspan.methods.infinigen import InfiniGen
from longspan.methods.infllm import InfLLM
from longspan.methods.loki import Loki
from longspan.methods.magicpig import MagicPIG
from longspan.methods.oracle_topk import OracleTopK
from longspan.methods.pqcache import PQCache
from longspan.methods.quest import Quest
from longspan.methods.random_k import RandomK
from longspan.methods.retrieval_attention import RetrievalAttention
from longspan.methods.retroinfer import RetroInfer
from longspan.methods.retroinfer_paper import RetroInferPaper
from longspan.methods.shadowkv import ShadowKV
from longspan.methods.snapkv import SnapKV
from longspan.methods.streaming_llm import StreamingLLM
from longspan.studies.once import CAP
from longspan.studies.plots import curves, key, panels
from longspan.studies.scored import compared, scored
from longspan.studies.study import Study, begin, launch
from longspan.studies.trace import replay

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import pandas as pd

    from longspan.methods.base import Method

BUDGETS = (0.01, 0.02, 0.05, 0.1)
"""Shares of the context retrieved, beside the static tokens."""
TABLES = (40, 75, 150, 300)
"""Of MagicPIG, whose budget is what it happens to sample."""
STATIC: dict[str, Any] = {"sink_tokens": 4, "local_tokens": 64}
"""Of every method that has static tokens."""
ALIKE: dict[str, Any] = {**STATIC, "dense_layers": ()}
PERCENT = {
    "exact": "read exactly %",
    "error": "output error %",
    "mass": "attention read %",
    "agreement": "same token %",
}

KL = "KL, millinats"
"""Of the next token's distribution from full attention's."""

WAYS: dict[str, Callable[[float], Method]] = {
    "oracle_topk": lambda share: replace(OracleTopK(), budget=share, **STATIC),
    "retroinfer": lambda share: replace(RetroInfer(), retrieval_budget=share, **STATIC),
    "retroinfer, tolerance 0": lambda share: replace(
        RetroInfer(), retrieval_budget=share, min_clusters=1, tolerance=0.0, **STATIC
    ),
    "retroinfer_paper": lambda share: replace(RetroInferPaper(), retrieval_budget=share, **STATIC),
    "retrieval_attention": lambda share: replace(
        RetrievalAttention(), top_tokens=None, retrieval_budget=share, **ALIKE
    ),
    "hybrid": lambda share: replace(Hybrid(), top_tokens=None, retrieval_budget=share, **ALIKE),
    "loki": lambda share: replace(Loki(), retrieval_budget=share, **ALIKE),
    "loki as published": lambda share: replace(
        Loki(), retrieval_budget=share, rank=0.25, metric="keys", candidates=1.0, **ALIKE
    ),
    "infinigen": lambda share: replace(InfiniGen(), retrieval_budget=share, **ALIKE),
    "infinigen, two layers dense": lambda share: replace(
        InfiniGen(), retrieval_budget=share, **STATIC
    ),
    "infinigen, own query": lambda share: replace(
        InfiniGen(), retrieval_budget=share, speculate=False, **ALIKE
    ),
    "pqcache": lambda share: replace(PQCache(), retrieval_budget=share, **ALIKE),
    "pqcache, 4 parts of 8 bits": lambda share: replace(
        PQCache(), retrieval_budget=share, parts=4, bits=8, **ALIKE
    ),
    "quest": lambda share: replace(Quest(), retrieval_budget=share, **ALIKE),
    "quest, two layers dense": lambda share: replace(Quest(), retrieval_budget=share, **STATIC),
    "shadowkv": lambda share: replace(ShadowKV(), retrieval_budget=share, **STATIC),
    "infllm": lambda share: replace(InfLLM(), retrieval_budget=share, **STATIC),
    "h2o": lambda share: replace(H2O(), budget=share),
    "snapkv": lambda share: replace(SnapKV(), budget=share),
    "streaming_llm": lambda share: replace(StreamingLLM(), budget=share),
    "random_k": lambda share: replace(RandomK(), budget=share, **STATIC),
}
WHOLE = ("infllm", "h2o")
"""They need all queries of a prompt, of which an example read once keeps CAP."""


@dataclass(frozen=True)
class Sizes:
    """Defaults of the command line."""

    tasks: tuple[str, ...] = ("ruler_niah_multikey_1", "ruler_niah_multiquery", "ruler_vt")
    ctx: int = 4096
    examples: int = 6
    replayed: int = 1
    """Examples on which the output error is measured, without errors of lower layers."""
    steps: int = 16
    answer: int = 64
    """Tokens of an answer at most: a wrong one would go on to what the task allows."""


def methods(ctx: int) -> dict[tuple[str, str], Method]:
    """By name and budget; those that can read a prompt of this context."""
    found: dict[tuple[str, str], Method] = {("full", "full"): Full()}
    for name, make in WAYS.items():
        if name in WHOLE and ctx > CAP:
            continue
        for share in BUDGETS:
            found[name, f"{100 * share:g}%"] = make(share)
    for tables in TABLES:
        found["magicpig", f"{tables} tables"] = replace(MagicPIG(), tables=tables, **ALIKE)
    return found


def rows(study: Study, sizes: Sizes) -> pd.DataFrame:
    """A row an example and method."""
    limit = {"generation.max_new_tokens": sizes.answer}
    runs = [
        study.run(task=each, ctx=sizes.ctx, samples=sizes.examples, **limit) for each in sizes.tasks
    ]
    units = [(task, number) for number in range(sizes.examples) for task in range(len(runs))]
    tried = methods(sizes.ctx)
    with torch.inference_mode():
        return study.rows(
            units,
            lambda unit: scored(
                runs[unit[0]],
                unit[1],
                tried,
                replay if unit[1] < sizes.replayed else None,
                sizes.steps,
                expected=True,
            ),
            model=runs[0].model,
        )


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """A row a method and budget, in percent."""
    shown = compared(frame, ("full", "full"), "to full attention")
    for name, column in PERCENT.items():
        shown[column] = 100 * shown[name]
    shown["kl"] *= 1000
    columns = ["group", "value", "score", "to full attention", *PERCENT.values(), "kl"]
    names = {"group": "method", "value": "budget", "kl": KL}
    return shown[columns].rename(columns=names)


def by_task(frame: pd.DataFrame) -> pd.DataFrame:
    """Mean score, a column a task."""
    table = frame.pivot_table(
        index=["group", "value"], columns="task", values="score", sort=False
    ).reset_index()
    table.columns.name = None
    return table.rename(columns={"group": "method", "value": "budget"})


def figures(study: Study, shown: pd.DataFrame) -> None:
    """Score, error and divergence against what is read."""
    figure, grid = panels(3)
    tried = shown[shown["method"] != "full"]
    for axes, column in zip(grid, ("score", "output error %", KL), strict=True):
        curves(axes, tried, "read exactly %", column, "method")
    grid[2].set_yscale("log")
    key(grid[2], loc="upper left", bbox_to_anchor=(1.02, 1.1))
    for axes in grid:
        axes.set_xscale("log")
    study.save(methods=figure)


def main(arguments: Sequence[str]) -> None:
    """Measure what is missing, write table and figures."""
    study, sizes = begin(__file__, __doc__, Sizes(), arguments)
    frame = rows(study, sizes)
    shown = summary(frame)
    figures(study, shown)
    about = (
        f"{', '.join(sizes.tasks)}; {sizes.ctx} tokens, {sizes.examples} examples each, replay of "
        f"{sizes.replayed}"
    )
    study.table(
        frame.round(4), about, {"Every method": shown, "Score by task": by_task(frame).round(1)}
    )


if __name__ == "__main__":
    sys.exit(launch(main))
