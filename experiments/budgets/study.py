"""What RetroInfer's budgets buy: the paper's ablations, and budgets that differ by layer. See
README.md.

    python experiments/budgets/study.py --out experiments/budgets
"""

from __future__ import annotations

import sys
from collections import defaultdict
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch

from longspan.methods.full import Full
from longspan.methods.retroinfer import RetroInfer
from longspan.studies.allocation import calibrated, pyramid
from longspan.studies.plots import curves, key, panels
from longspan.studies.scored import compared, scored
from longspan.studies.study import Study, begin, launch
from longspan.studies.trace import Read, replay

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from longspan.methods.base import Method
    from longspan.runner import Run

BASE = RetroInfer(retrieval_budget=0.018, min_clusters=1, tolerance=0.0)
"""The paper's: budgets alone say what is read."""
RETRIEVAL = (0.005, 0.01, 0.018, 0.025, 0.05, 0.1, 0.2)
ESTIMATION = (0.0, 0.082, 0.232, 0.482, 0.98)
STEADY = ((0, 0), (0, 64), (4, 0), (4, 64), (8, 128))
CLUSTER = (8, 16, 32)
SEGMENT = (1024, 2048, 8192)
TOLERANCE = (0.02, 0.01, 0.005, 0.002, 0.001)
PERCENT = {"exact": "read exactly %", "error": "output error %", "mass": "attention read %"}
LADDER = (0.005, 0.01, 0.018, 0.025, 0.035, 0.05, 0.07, 0.1, 0.14, 0.2)
"""Shares that a layer may get."""


@dataclass(frozen=True)
class Sizes:
    """Defaults of the command line."""

    tasks: tuple[str, ...] = ("ruler_niah_multikey_1", "ruler_niah_multiquery")
    ctx: int = 4096
    examples: int = 6
    replayed: int = 2
    """Examples on which the output error is measured, without errors of lower layers."""
    steps: int = 16
    answer: int = 64
    """Tokens of an answer at most: a wrong one would go on to what the task allows."""
    mean: float = field(default=0.05, metadata={"least": LADDER[0], "most": 1})
    """Share of the clusters that the layers divide among themselves."""


def ablations() -> dict[tuple[str, str], Method]:
    """One setting changed at a time, by group and value."""
    found: dict[tuple[str, str], Method] = {("full", "full"): Full()}
    for share in RETRIEVAL:
        method = replace(BASE, retrieval_budget=share)
        found["retrieval", f"{100 * share:g}%"] = method
        found["retrieval, no estimation", f"{100 * share:g}%"] = replace(method, estimation="none")
    for share in ESTIMATION:
        found["estimation", f"{100 * share:g}%"] = replace(BASE, estimation_budget=share)
    for sink, local in STEADY:
        steady = replace(BASE, sink_tokens=sink, local_tokens=local)
        found["steady", f"{sink} + {local}"] = steady
    for size in CLUSTER:
        found["cluster", f"{size} tokens"] = replace(BASE, tokens_per_cluster=size)
    for size in SEGMENT:
        found["segment", f"{size} tokens"] = replace(BASE, segment_tokens=size)
    found["default", "default"] = RetroInfer()
    for tolerance in TOLERANCE:
        for share in (0.005, BASE.retrieval_budget):
            method = replace(BASE, retrieval_budget=share, tolerance=tolerance)
            found[f"{100 * share:g}% and a tolerance", f"{tolerance:g}"] = method
    return found


def allocations(mean: float, by_layer: list[dict[float, float]]) -> dict[tuple[str, str], Method]:
    """The mean divided among the layers."""
    layers = len(by_layer)
    ways = {
        "uniform": (mean,) * layers,
        "pyramid": pyramid(mean, layers),
        "pyramid upside down": pyramid(mean, layers)[::-1],
        "calibrated": calibrated(mean, by_layer),
    }
    return {("layers", name): replace(BASE, layer_budgets=shares) for name, shares in ways.items()}


def calibration(run: Run, steps: int) -> list[dict[str, Any]]:
    """What every share of `LADDER` recovers in every layer of an example that is not scored."""
    traces = Read(run.model, run.examples[-1], steps).traces(steps)
    return [
        {"layer": layer, "share": share, "mass": replay(method, trace)["mass"]}
        for share in LADDER
        for method in (replace(BASE, retrieval_budget=share),)
        for layer, trace in enumerate(traces)
    ]


def rows(study: Study, sizes: Sizes) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(calibration, everything else)."""
    limit = {"generation.max_new_tokens": sizes.answer}
    runs = [
        study.run(task=each, ctx=sizes.ctx, samples=sizes.examples + 1, **limit)
        for each in sizes.tasks
    ]
    model = runs[0].model
    with torch.inference_mode():
        first = study.rows(
            [("calibration", task) for task in range(len(runs))],
            lambda unit: [
                {"task": unit[1], **row} for row in calibration(runs[unit[1]], sizes.steps)
            ],
            model=model,
        )
        methods = []
        for task in range(len(runs)):
            layers: dict[int, dict[float, float]] = defaultdict(dict)
            for row in first[first["task"] == task].to_dict("records"):
                layers[int(row["layer"])][row["share"]] = row["mass"]
            curves_L = [layers[layer] for layer in sorted(layers)]
            methods.append({**ablations(), **allocations(sizes.mean, curves_L)})
            print("calibrated:", methods[-1]["layers", "calibrated"])
        units = [(task, number) for number in range(sizes.examples) for task in range(len(runs))]
        frame = study.rows(
            units,
            lambda unit: scored(
                runs[unit[0]],
                unit[1],
                methods[unit[0]],
                replay if unit[1] < sizes.replayed else None,
                sizes.steps,
            ),
            model=model,
        )
    return first, frame


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """A row a group and value, in percent."""
    shown = compared(frame, ("full", "full"), "to full attention")
    for name, column in PERCENT.items():
        shown[column] = 100 * shown[name]
    shown["MB a step"] = shown["bytes"] / 1e6
    columns = ["group", "value", "score", "to full attention", *PERCENT.values(), "MB a step"]
    return shown[columns]


def figures(study: Study, shown: pd.DataFrame) -> None:
    """Score and error against what is read, and the allocations."""
    figure, grid = panels(3)
    swept = shown[shown["group"].str.contains("retrieval|tolerance")]
    curves(grid[0], swept, "read exactly %", "score", "group")
    grid[0].axhline(float(shown[shown["group"] == "full"]["score"].iloc[0]), color="grey", ls=":")
    curves(grid[1], swept, "read exactly %", "output error %", "group")
    key(grid[1])
    for axes in grid[:2]:
        axes.set_xscale("log")
    layers = shown[shown["group"] == "layers"]
    grid[2].bar(layers["value"], layers["output error %"], width=0.6)
    grid[2].set(ylabel="output error %", title="one mean, divided among the layers")
    grid[2].tick_params(axis="x", labelrotation=20)
    study.save(budgets=figure)


def main(arguments: Sequence[str]) -> None:
    """Measure what is missing, write table and figures."""
    study, sizes = begin(__file__, __doc__, Sizes(), arguments)
    first, frame = rows(study, sizes)
    shown = summary(frame)
    figures(study, shown)
    about = (
        f"{', '.join(sizes.tasks)}; {sizes.ctx} tokens, {sizes.examples} examples each, replay of "
        f"{sizes.replayed}; layers divide {100 * sizes.mean:g}%"
    )
    ladder = first.pivot_table(index="share", columns="layer", values="mass")
    ladder.columns = [f"layer {int(each)}" for each in ladder.columns]
    shares = {"Attention read in the calibration": ladder.reset_index()}
    study.table(frame.round(4), about, {"Every setting": shown, **shares})


if __name__ == "__main__":
    sys.exit(launch(main))
