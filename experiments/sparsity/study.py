"""How few tokens hold the attention, and for how long. See README.md.

python experiments/sparsity/study.py --out experiments/sparsity
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast, get_args

import pandas as pd
import torch

from longspan.methods.retroinfer import RetroInfer
from longspan.studies.plots import curves, heat, key, panels
from longspan.studies.study import Study, begin, launch
from longspan.studies.trace import Read, Trace
from longspan_kernels.block_cache import Policy, optimum, simulate
from longspan_kernels.types import Runs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from longspan.methods.retrieval import RetrievalState

SIZES: dict[str, int | float] = {
    "100": 100, "500": 500, "1000": 1000, "1%": 0.01, "2%": 0.02, "5%": 0.05
}  # fmt: skip
"""Tokens that are kept: a count, or a share of the context."""
MASSES = (0.9, 0.95, 0.99)
TOP = 100
CAPACITIES = (0.01, 0.02, 0.05, 0.1, 0.2)
"""Of the block cache, shares of the keys and values."""
BEST = "no policy can beat"
EMPTY = ", empty at first"
APART = ", a layer its own"


@dataclass(frozen=True)
class Sizes:
    """Defaults of the command line."""

    tasks: tuple[str, ...] = (
        "ruler_niah_single_2", "ruler_niah_multikey_1", "ruler_niah_multiquery", "ruler_vt"
    )  # fmt: skip
    ctx: int = 8192
    examples: int = 2
    steps: int = field(default=32, metadata={"least": 2})
    """Two at least, to be compared."""


def kept(size: float, tokens: int) -> int:
    """How many of `tokens` that is."""
    return min(tokens, round(size * tokens) if isinstance(size, float) else int(size))


def holds(sorted_HT: Tensor) -> dict[str, Tensor]:
    """By size, the attention [H] of the best tokens; by mass, the share [H] of them it takes."""
    sum_HT, tokens = sorted_HT.cumsum(-1), sorted_HT.shape[1]
    found = {f"top {name}": sum_HT[:, kept(size, tokens) - 1] for name, size in SIZES.items()}
    for mass in MASSES:
        share_H = (sum_HT < mass).sum(-1).add(1) / tokens
        found[f"tokens for {mass:g}"] = share_H
    return found


def measure(trace: Trace, names: dict[str, Any]) -> list[dict[str, Any]]:
    """A row a step and head: what the best tokens of the step hold, and what those of the first
    step still hold, with all tokens since; and, by head, how much of a step's best of the prompt is
    the best of a later one.
    """
    first_HK = trace.weights_HT(0)[:, : trace.prompt].topk(kept(1000, trace.prompt)).indices
    rows: list[dict[str, Any]] = []
    best: list[Tensor] = []
    for step in range(len(trace.steps)):
        weight_HT = trace.weights_HT(step)
        sorted_HT = weight_HT.sort(dim=-1, descending=True).values
        best.append(weight_HT[:, : trace.prompt].topk(min(TOP, trace.prompt)).indices)
        found = holds(sorted_HT)
        since_H = weight_HT[:, trace.prompt :].sum(-1)
        found["frozen top 1000"] = weight_HT.gather(1, first_HK).sum(-1) + since_H
        for head in range(len(weight_HT)):
            values = {name: round(float(value_H[head]), 5) for name, value_H in found.items()}
            rows.append({**names, "step": step, "head": head, **values})
    return rows + overlaps(best, names)


def overlaps(best: Sequence[Tensor], names: dict[str, Any]) -> list[dict[str, Any]]:
    """The share of a step's best tokens that are so `lag` steps later, mean over steps."""
    rows = []
    lag = 1
    while lag < len(best):
        shares_NH = [
            torch.stack([torch.isin(a, b).float().mean() for a, b in zip(x, y, strict=True)])
            for x, y in zip(best, best[lag:], strict=False)
        ]
        for head, share in enumerate(torch.stack(shares_NH).mean(0).tolist()):
            rows.append({**names, "lag": lag, "head": head, "overlap": round(share, 5)})
        lag *= 2
    return rows


def reads(trace: Trace) -> tuple[Runs, list[Runs]]:
    """The clusters that the prompt's last query asks for, and those that RetroInfer reads, step by
    step.
    """
    state = cast("RetrievalState", trace.state(RetroInfer()))
    asked, read = state.expected(), []
    if asked is None:
        none_N = torch.zeros(len(trace.k_GTD), dtype=torch.int32)
        asked = Runs(none_N[:, None], none_N[:, None], none_N)
    for step, (q_HD, _) in enumerate(trace.steps):
        token = trace.prompt + step
        state.append(trace.k_GTD[:, token], trace.v_GTD[:, token])
        state.decode(q_HD)
        if (runs := state.selection.retrieved) is not None:
            read.append(runs)
    return asked, read


def cached(traces: Sequence[Trace], names: dict[str, Any]) -> list[dict[str, Any]]:
    """What a block cache, filled for the prompt's last query, or empty at first, would have held of
    what all layers read, from the step on in which all have an index: one that these share, and one
    each.
    """
    each = [reads(trace) for trace in traces]
    steps = min(len(read) for _, read in each)
    by_layer = [[asked, *read[len(read) - steps :]] for asked, read in each]
    together = [runs for step in zip(*by_layer, strict=True) for runs in step]
    groups, layers = len(traces[0].k_GTD), len(traces)
    shared: dict[str, Any] = {"groups": groups, "layers": layers}
    found = []
    for share in CAPACITIES:
        entries = round(share * traces[0].prompt * groups)
        whole = entries * layers
        replays = {
            BEST: [optimum(together, whole, warmup=1, **shared)],
            BEST + EMPTY: [optimum(together[layers:], whole, **shared)],
        }
        for policy in get_args(Policy):
            replays[policy] = [simulate(together, whole, policy, warmup=1, **shared)]
            replays[policy + EMPTY] = [simulate(together[layers:], whole, policy, **shared)]
            replays[policy + APART] = [
                simulate(read, entries, policy, warmup=1, groups=groups) for read in by_layer
            ]
        for name, parts in replays.items():
            hits, misses = sum(x.hit_entries for x in parts), sum(x.miss_entries for x in parts)
            ratio = round(hits / max(1, hits + misses), 5)
            found.append({**names, "policy": name, "capacity": share, "hit ratio": ratio})
    return found


def rows(study: Study, sizes: Sizes) -> pd.DataFrame:
    """All tasks, examples and layers."""
    runs = [study.run(task=task, ctx=sizes.ctx, samples=sizes.examples) for task in sizes.tasks]

    def unit(which: Sequence[int]) -> list[dict[str, Any]]:
        task, number = which
        read = Read(runs[task].model, runs[task].examples[number], sizes.steps)
        names = {"task": runs[task].task.label, "example": number}
        traces = read.traces(sizes.steps)
        found = cached(traces, names)
        for layer, trace in enumerate(traces):
            found += measure(trace, {**names, "layer": layer})
        return found

    units = [(task, number) for task in range(len(runs)) for number in range(sizes.examples)]
    with torch.inference_mode():
        return study.rows(units, unit, model=runs[0].model)


def figures(study: Study, steps: pd.DataFrame, lags: pd.DataFrame, hits: pd.DataFrame) -> None:
    """By head, over steps, from step to step; and the block cache."""
    figure, grid = panels(3)
    heat(grid[0], steps, "layer", "head", "top 1%", vmin=0, vmax=1)
    grid[0].set_title("attention in the best 1% of the tokens")
    mean = steps.groupby(["task", "step"], sort=False).mean(numeric_only=True).reset_index()
    both = pd.concat(
        [
            mean.groupby("step")[column].mean().rename("attention held").reset_index().assign(
                tokens=name
            )
            for column, name in (
                ("top 1000", "best 1000 of the step"), ("frozen top 1000", "best 1000 of step 0")
            )
        ]
    )  # fmt: skip
    curves(grid[1], both, "step", "attention held", "tokens")
    key(grid[1])
    over = lags.groupby(["task", "lag"], sort=False)["overlap"].mean().reset_index()
    over = over.rename(columns={"overlap": f"share of the best {TOP}", "lag": "steps apart"})
    curves(grid[2], over, "steps apart", f"share of the best {TOP}", "task")
    grid[2].set(xscale="log", ylim=(0, 1))
    key(grid[2])
    cache, (axes,) = panels(1, width=4)
    filled = hits[~hits["policy"].str.endswith(EMPTY)]
    named = filled.rename(columns={"capacity": "capacity, share of keys and values"})
    curves(axes, named, "capacity, share of keys and values", "hit ratio", "policy")
    key(axes)
    study.save(sparsity=figure, block_cache=cache)


def main(arguments: Sequence[str]) -> None:
    """Measure what is missing, write table and figures."""
    study, sizes = begin(__file__, __doc__, Sizes(), arguments)
    frame = rows(study, sizes)
    steps, lags = frame[frame["step"].notna()], frame[frame["lag"].notna()]
    by_capacity = frame.groupby(["policy", "capacity"], sort=False)["hit ratio"].mean()
    figures(study, steps, lags, by_capacity.reset_index())
    columns = [name for name in frame if str(name).startswith(("top", "tokens", "frozen"))]
    by_task = (100 * steps.groupby("task", sort=False)[columns].mean()).reset_index()
    by_layer = (100 * steps.astype({"layer": int}).groupby("layer")[columns].mean()).reset_index()
    over = lags.pivot_table(index="task", columns="lag", values="overlap", sort=False)
    over = (100 * over).rename(columns=int).reset_index()
    by_head = frame.drop(columns="step").groupby(
        ["task", "layer", "head", "lag", "policy", "capacity"], dropna=False
    )
    small = by_head.mean(numeric_only=True).round(4).reset_index().drop(columns="example")
    about = f"{sizes.ctx} tokens, {sizes.examples} examples a task, {sizes.steps} steps"
    tables = {
        "Attention held by the best tokens, tokens needed for a share of it; %, by task": by_task,
        "The same by layer": by_layer,
        f"Share of a step's best {TOP} tokens among the best so many steps later, %": over,
        "Clusters found in a block cache, %, by its capacity": (100 * by_capacity)
        .unstack()
        .reset_index(),
    }
    study.table(small, about, tables)


if __name__ == "__main__":
    sys.exit(launch(main))
