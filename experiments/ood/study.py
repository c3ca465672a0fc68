"""How far queries lie from keys, and what that does to the indexes. See README.md.

python experiments/ood/study.py --out experiments/ood
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch

from longspan.studies.plots import curves, heat, key, panels
from longspan.studies.search import Built, contenders, least
from longspan.studies.study import Study, begin, launch
from longspan.studies.trace import Read, Trace

sys.path.append(str(Path(__file__).parents[2] / "kernels" / "bench"))
from ood_keys import mahalanobis_gap, ood_keys

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

STATIC = (128, 512)
"""Tokens at either end that are always attended, and so not indexed (the paper's)."""


@dataclass(frozen=True)
class Sizes:
    """Defaults of the command line."""

    task: str = "ruler_niah_multikey_1"
    ctx: int = 16_384
    examples: int = 1
    steps: int = 16
    top: int = 100
    synthetic: int = field(default=32_768, metadata={"least": 0})
    """Keys of the generator that imitates a large model; 0 leaves it out."""

    def __post_init__(self) -> None:
        if 0 < self.synthetic < 10:  # a tenth of them is held out
            raise ValueError(f"--synthetic = {self.synthetic}: right would be 0, or 10 or more")


@dataclass(frozen=True)
class Keys:
    """What the indexes of a layer see: keys, the queries before, and those that search."""

    keys_GTD: Tensor
    train_HSD: Tensor
    test_NHD: Tensor


def of_layer(trace: Trace) -> Keys:
    """The keys between the static ones."""
    first, last = STATIC
    keys_GTD = trace.k_GTD[:, : trace.prompt]
    if trace.prompt > 2 * (first + last):
        keys_GTD = keys_GTD[:, first : trace.prompt - last]
    assert trace.queries_HSD is not None
    test_NHD = torch.stack([q_HD for q_HD, _ in trace.steps])
    return Keys(keys_GTD.float().contiguous(), trace.queries_HSD.float(), test_NHD.float())


def made(tokens: int) -> Keys:
    """Keys and queries as a large model has them."""
    data = ood_keys(tokens, test=32)
    return Keys(data.keys_TD[None], data.train_RSD, data.test_RSD.transpose(0, 1).contiguous())


def measure(keys: Keys, top: int, names: dict[str, Any]) -> list[dict[str, Any]]:
    """Distances by head, and recall against scanning for queries and for keys as queries."""
    groups, tokens, _ = keys.keys_GTD.shape
    by_group = keys.train_HSD.reshape(groups, -1, *keys.train_HSD.shape[1:])
    rows: list[dict[str, Any]] = []
    for group, queries_RSD in enumerate(by_group):
        for row, queries_SD in enumerate(queries_RSD):
            gap = mahalanobis_gap(keys.keys_GTD[group], queries_SD)
            rows.append({**names, "head": group * len(queries_RSD) + row, "gap": gap})
    order_T = torch.randperm(tokens, generator=torch.Generator().manual_seed(0))
    held = min(32, tokens // 10)
    key_NGD = keys.keys_GTD[:, order_T[:held]].transpose(0, 1).contiguous()
    rest_GTD = keys.keys_GTD[:, order_T[held:].sort().values].contiguous()
    top = min(top, tokens // 10)
    for contender in contenders().values():
        built = Built.of(contender.make(), rest_GTD, keys.train_HSD)
        for kind, queries_NHD in (("queries", keys.test_NHD), ("keys", key_NGD)):
            for found in built.curve(contender, queries_NHD, top):
                rows.append({**names, "index": contender.name, "search": kind, **found})
    return rows


def rows(study: Study, sizes: Sizes) -> pd.DataFrame:
    """All of them: every layer of every example, then the generator's."""
    run = study.run(task=sizes.task, ctx=sizes.ctx, samples=sizes.examples)

    @lru_cache(1)
    def traces(number: int) -> list[Trace]:
        return Read(run.model, run.examples[number], sizes.steps).traces(sizes.steps)

    def unit(which: Sequence[int]) -> list[dict[str, Any]]:
        if not which:
            return measure(made(sizes.synthetic), sizes.top, {"layer": "made", "example": 0})
        layer, example = which
        return measure(
            of_layer(traces(example)[layer]), sizes.top, {"layer": layer, "example": example}
        )

    units: list[Sequence[int]] = [
        (layer, example)
        for example in range(len(run.examples))
        for layer in range(len(run.model.geometries))
    ]
    with torch.inference_mode():
        return study.rows([*units, *([()] if sizes.synthetic else [])], unit, model=run.model)


def needed(curve: pd.DataFrame) -> pd.DataFrame:
    """Share to be scanned for a recall of 0.95, in percent, by where the keys are from."""
    found = []
    for (name, kind, layer), each in curve.groupby(["index", "search", "layer"], sort=False):
        mean = each.groupby("effort")[["recall", "scanned"]].mean()
        share = least([{"recall": found, "scanned": part} for found, part in mean.to_numpy()])
        found.append(
            {
                "index": name,
                "searched by": kind,
                "keys": f"layer {layer}" if layer != "made" else "made",
                "share": None if share is None else 100 * share,
            }
        )
    frame = pd.DataFrame(found)
    return frame.pivot(index=["index", "searched by"], columns="keys", values="share").reset_index()


def main(arguments: Sequence[str]) -> None:
    """Measure what is missing, write table and figures."""
    study, sizes = begin(__file__, __doc__, Sizes(), arguments)
    frame = rows(study, sizes)
    gaps, curve = frame[frame["gap"].notna()], frame[frame["index"].notna()].copy()
    curve["% of the keys scored"] = 100 * curve["scanned"]
    figure, (axes,) = panels(1, width=4)
    heat(axes, gaps.assign(layer=gaps["layer"].astype(str)), "layer", "head", "gap")
    axes.set_title("distance of queries / of held-out keys")
    own = curve["layer"] != "made"
    shown = [("queries", own, "the model: searched by queries"), ("keys", own, "by held-out keys")]
    if sizes.synthetic:
        shown.append(("queries", ~own, f"made, {sizes.synthetic} keys: by queries"))
    lines, grid = panels(len(shown))
    for place, (kind, chosen, title) in zip(grid, shown, strict=True):
        part = curve[chosen & (curve["search"] == kind)]
        mean = part.groupby(["index", "effort"], sort=False).mean(numeric_only=True).reset_index()
        curves(place, mean, "% of the keys scored", "recall", "index")
        place.set(title=title, xscale="log")
        place.axhline(0.95, color="grey", lw=0.8, ls=":")
    key(grid[-1], loc="lower right")
    study.save(distance=figure, recall=lines)
    about = f"{sizes.task}, {sizes.ctx} tokens, {sizes.examples} examples, recall@{sizes.top}"
    by_layer = gaps.groupby("layer", sort=False)["gap"].agg(["mean", "min", "max"]).reset_index()
    shares = {
        "Distance of queries over that of held-out keys": by_layer,
        "Keys to be scored for a recall of 0.95, %": needed(curve),
    }
    study.table(frame, about, shares)


if __name__ == "__main__":
    sys.exit(launch(main))
