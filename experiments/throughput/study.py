"""Decode time against context, batch, geometry and placement, on random weights. See README.md.

python experiments/throughput/study.py --out experiments/throughput
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch

from longspan.studies.plots import curves, panels
from longspan.studies.study import begin, launch

sys.path.insert(0, str(Path(__file__).parent))
from cells import Sizes, measure, names
from model import GEOMETRIES
from timing import prefill_s


def with_prefill(frame: Any, prefill: Any, sizes: Sizes) -> Any:
    """Beside each row what reading the prompts takes, what the index adds, and a whole answer."""
    frame = frame.merge(prefill, on=["geometry", "context"], how="left")
    frame["index of prefill %"] = 100 * frame["build s a prompt"] / frame["prefill s a prompt"]
    reading = frame["batch"] * (frame["prefill s a prompt"] + frame["build s a prompt"])
    frame[f"s for {sizes.new} tokens"] = reading + sizes.new * frame["ms a step"] / 1e3
    return frame


def main(arguments: list[str]) -> None:
    """Measure what is missing; write table and figure."""
    study, sizes = begin(__file__, __doc__, Sizes(), arguments)
    sizes = sizes.here()
    methods = names(sizes.methods, sizes.device)
    places = [(g, c) for g in sizes.geometries for c in sizes.contexts]
    units = [(g, c, b, name) for g, c in places for b in sizes.batches for name in methods]

    def reading(place: tuple[str, int]) -> list[dict[str, Any]]:
        shape, base = GEOMETRIES[place[0]], sizes.decoder(place[0])
        seconds = prefill_s(base, place[1], sizes) * shape.layers / sizes.layers
        return [{"geometry": place[0], "context": place[1], "prefill s a prompt": seconds}]

    with torch.inference_mode():
        prefill = study.rows(places, reading, model=None)
        frame = study.rows(units, lambda unit: measure(unit, sizes), model=None)
    shown = with_prefill(frame, prefill, sizes)
    figure, axes = panels(len(sizes.geometries))
    for name, axis in zip(sizes.geometries, axes, strict=True):
        own = shown[(shown["geometry"] == name) & (shown["asked"] == sizes.batches[0])]
        curves(axis, own.dropna(subset=["ms a step"]), "context", "ms a step", "method")
        axis.set(title=f"{name}, batch {sizes.batches[0]}", xscale="log", yscale="log")
    axes[-1].legend()
    study.save(figure=figure)
    about = f"{sizes.layers} layers measured on {sizes.device} and scaled to the model's, bfloat16"
    about += ", compiled" * (sizes.compile == "yes")
    study.table(shown, about, {"Decode": shown})


if __name__ == "__main__":
    sys.exit(launch(main))
