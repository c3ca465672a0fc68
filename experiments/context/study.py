"""What a longer context costs each index, and what it still finds. See README.md.

python experiments/context/study.py --out experiments/context
"""

from __future__ import annotations

import math
import sys
import time
from dataclasses import dataclass, field
from functools import cache
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from longspan.indexes.base import Budget
from longspan.studies.plots import curves, key, panels
from longspan.studies.search import Built, contenders
from longspan.studies.study import Study, begin, launch
from longspan.studies.timing import best_seconds
from longspan.studies.trace import Read, Trace
from longspan_kernels.dense_decode import dense_decode

sys.path.append(str(Path(__file__).parents[2] / "kernels" / "bench"))
from ood_keys import ood_keys

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from torch import Tensor

EFFORT = {"HNSW": 512, "attention graph": 192}
"""Breadth of the search, as conf/method has it; IVF scans 30% of its lists."""


@dataclass(frozen=True)
class Sizes:
    """Defaults of the command line."""

    made: tuple[int, ...] = (4096, 16_384, 65_536, 262_144, 1_048_576)
    """Keys of the generator that imitates a head of a large model."""
    model: tuple[int, ...] = field(default=(4096, 16_384), metadata={"least": 0})
    """Tokens that the model reads, for keys of its own; 0 for none."""
    task: str = "ruler_niah_multikey_1"
    layer: int = field(default=-1, metadata={"least": -math.inf})
    """Of the model; -1 is its last."""
    slow: int = field(default=65_536, metadata={"least": 0})
    """Most keys that a graph is built over; 0 for no graphs."""
    top: int = 100
    share: float = field(default=0.018, metadata={"most": 1})
    """What the wave index retrieves."""
    queries: int = 16
    rounds: int = 5


@dataclass(frozen=True)
class Keys:
    """One KV head."""

    keys_GTD: Tensor
    train_HSD: Tensor
    test_NHD: Tensor


def made(tokens: int, queries: int) -> Keys:
    """By the generator, in bfloat16."""
    data = ood_keys(tokens, train=2048, test=queries)
    test_NHD = data.test_RSD.transpose(0, 1).contiguous()
    return Keys(data.keys_TD[None].bfloat16(), data.train_RSD, test_NHD)


def of_layer(trace: Trace) -> Keys:
    """The first KV head of a layer."""
    assert trace.queries_HSD is not None
    heads = len(trace.queries_HSD) // len(trace.k_GTD)
    test_NHD = torch.stack([q_HD[:heads].float() for q_HD, _ in trace.steps])
    keys_GTD = trace.k_GTD[:1, : trace.prompt].contiguous()
    return Keys(keys_GTD, trace.queries_HSD[:heads].float(), test_NHD)


def budget(name: str, tokens: int, sizes: Sizes) -> Budget:
    """The default of the method."""
    wanted = round(sizes.share * tokens) if name == "wave" else min(sizes.top, tokens)
    return Budget(max(1, wanted), effort=EFFORT.get(name))


def index(keys: Keys, name: str, sizes: Sizes) -> dict[str, Any]:
    """Build one, search it, take the time of a step of this KV head."""
    asked = budget(name, keys.keys_GTD.shape[1], sizes)
    begun = time.perf_counter()
    built = Built.of(contenders()[name].make(), keys.keys_GTD, keys.train_HSD)
    build_s = time.perf_counter() - begun
    found = built.search(keys.test_NHD, asked, min(sizes.top, keys.keys_GTD.shape[1]))
    turns = cycle(keys.test_NHD)
    scale = keys.keys_GTD.shape[2] ** -0.5
    call = {"step": lambda: built.index.search(next(turns), asked, scale)}
    seconds = best_seconds(call, sizes.rounds * 4)["step"]
    return {
        "index": name, "build_s": build_s, "search_ms": 1e3 * seconds,
        "index_bytes": built.index.nbytes, **found,
    }  # fmt: skip


def full(keys: Keys, sizes: Sizes) -> dict[str, Any]:
    """Full attention, which reads everything."""
    turns = cycle(keys.test_NHD.bfloat16())
    keys_GTD = keys.keys_GTD
    scale = keys_GTD.shape[2] ** -0.5
    call = {"step": lambda: dense_decode(next(turns), keys_GTD, keys_GTD, scale=scale)}
    seconds = best_seconds(call, sizes.rounds)["step"]
    return {
        "index": "full attention", "build_s": 0.0, "search_ms": 1e3 * seconds, "index_bytes": 0,
        "recall": 1.0, "scanned": 1.0,
    }  # fmt: skip


def rows(study: Study, sizes: Sizes) -> pd.DataFrame:
    """Every length and index, of both sources."""
    lengths = [each for each in sizes.model if each]
    runs = {each: study.run(task=sizes.task, ctx=each, samples=1) for each in lengths}
    model = next(iter(runs.values())).model if runs else None
    layers = len(model.geometries) if model else 0
    if layers and not -layers <= sizes.layer < layers:
        raise ValueError(f"--layer = {sizes.layer}: right would be from {-layers} to {layers - 1}")

    @cache
    def keys(source: str, tokens: int) -> Keys:
        if source == "made":
            return made(tokens, sizes.queries)
        run = runs[tokens]
        read = Read(run.model, run.examples[0], sizes.queries)
        return of_layer(read.traces(sizes.queries)[sizes.layer])

    def unit(which: Sequence[Any]) -> list[dict[str, Any]]:
        source, tokens, name = which
        if keys.cache_info().currsize > 1:
            keys.cache_clear()  # a million keys at a time
        here = keys(source, tokens)
        found = full(here, sizes) if name == "full attention" else index(here, name, sizes)
        return [{"keys": source, "tokens": here.keys_GTD.shape[1], **found}]

    units = [
        (source, tokens, name)
        for source, each in (("model", lengths), ("made", sizes.made))
        for tokens in each
        for name in ("full attention", *contenders())
        if name != "flat"
        if tokens <= sizes.slow or name not in EFFORT
    ]
    with torch.inference_mode():
        return study.rows(units, unit, model=model)


def main(arguments: Sequence[str]) -> None:
    """Measure what is missing, write table and figure."""
    study, sizes = begin(__file__, __doc__, Sizes(), arguments)
    frame = rows(study, sizes)
    names = {
        "search_ms": "search, ms a step",
        "build_s": "build, s",
        "recall": f"recall@{sizes.top}",
    }
    shown = frame.rename(columns=names)
    shown["% of the keys scored"] = 100 * shown["scanned"]
    figure, grid = panels(4, width=3)
    order = list(dict.fromkeys(frame["index"]))
    for axes, name in zip(grid, [*names.values(), "% of the keys scored"], strict=True):
        curves(axes, shown[shown["keys"] == "made"], "tokens", name, "index", order=order)
        axes.set_xscale("log", base=2)
        if name != names["recall"]:
            axes.set_yscale("log")
    key(grid[0])
    study.save(context=figure)
    shown["index MB"] = shown["index_bytes"] / 1e6
    columns = ["keys", "tokens", "index", *names.values(), "% of the keys scored", "index MB"]
    about = (
        f"one KV head, 4 (made) or the model's query heads; wave retrieves {100 * sizes.share:g}% "
        f"of the clusters, the others the best {sizes.top}; {torch.get_num_threads()} threads"
    )
    study.table(frame.round(5), about, {"By length": shown[columns]})


if __name__ == "__main__":
    sys.exit(launch(main))
