"""Where a step's time goes, and what attending two parts at once saves. See README.md.

python experiments/coexecution/study.py --out experiments/coexecution
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from longspan.indexes.base import Budget, KeyIndex
from longspan.indexes.faiss_ivf import FaissIvfIndex
from longspan.indexes.flat import FlatIndex
from longspan.indexes.wave import WaveIndex
from longspan.indexes.wave_options import WaveOptions
from longspan.studies.plots import key, panels
from longspan.studies.search import Built
from longspan.studies.step import Step
from longspan.studies.study import Study, begin, launch
from longspan.studies.timing import best_seconds

sys.path.append(str(Path(__file__).parents[2] / "kernels" / "bench"))
from inputs import topic_keys, topic_queries

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import pandas as pd
    from torch import Tensor

INDEXES: dict[str, Callable[[], KeyIndex]] = {
    "wave": lambda: WaveIndex(WaveOptions(kmeans_rounds=3)),
    "IVF": FaissIvfIndex,
    "flat": FlatIndex,
}
PARTS = ("static", "search", "retrieved", "merge")


@dataclass(frozen=True)
class Sizes:
    """Defaults of the command line; the shape is that of a layer of an 8B model."""

    tokens: int = 65_536
    static: tuple[int, ...] = (640, 4096, 16_384)
    """Tokens attended whatever the query, where the model is."""
    retrieve: int = 1180
    """Tokens retrieved: 1.8% of the default context."""
    heads: int = 32
    groups: int = 8
    width: int = 128
    rounds: int = 40

    def __post_init__(self) -> None:
        if self.heads % self.groups:
            right = f"a multiple of --groups = {self.groups}"
            raise ValueError(f"--heads = {self.heads}: right would be {right}")


def measure(
    built: Built, queries: Iterator[Tensor], sizes: Sizes, name: str
) -> list[dict[str, Any]]:
    """A row a number of static tokens: parts and wholes, in milliseconds."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    threads = torch.get_num_threads()
    budget = Budget(retrieve_tokens=min(sizes.retrieve, built.keys_GTD.shape[1]))
    rows = []
    for tokens in sizes.static:
        static_GTD = topic_keys(sizes.groups, tokens, sizes.width, 1)[0].to(device)
        step = Step(built, static_GTD, budget, queries)
        with ThreadPoolExecutor(1) as pool:
            calls: dict[str, Callable[[], object]] = {
                **step.parts(threads),
                "sequential": partial(step.sequential, threads),
                "together": partial(step.together, threads, pool),
            }
            ms = {key: 1e3 * s for key, s in best_seconds(calls, sizes.rounds).items()}
        torch.set_num_threads(threads)
        smaller = min(ms["static"], ms["search"] + ms["retrieved"])
        saved = ms["sequential"] - ms["together"]
        rows.append(
            {
                "device": device.type, "threads": threads, "index": name, "static tokens": tokens,
                **ms, "saved": saved, "overlap": saved / smaller,
            }
        )  # fmt: skip
    return rows


def rows(study: Study, sizes: Sizes) -> pd.DataFrame:
    """All indexes."""
    keys_GTD, centre_GCD = topic_keys(sizes.groups, sizes.tokens, sizes.width)
    queries_NHD = topic_queries(centre_GCD, sizes.heads // sizes.groups, 64)

    def unit(name: str) -> list[dict[str, Any]]:
        built = Built.of(INDEXES[name](), keys_GTD, None)
        return measure(built, cycle(queries_NHD), sizes, name)

    with torch.inference_mode():
        return study.rows(INDEXES, unit, model=None)


def main(arguments: Sequence[str]) -> None:
    """Measure what is missing, write table and figure."""
    study, sizes = begin(__file__, __doc__, Sizes(), arguments)
    frame = rows(study, sizes)
    figure, grid = panels(len(INDEXES))
    for axes, name in zip(grid, INDEXES, strict=True):
        each = frame[frame["index"] == name]
        left = torch.zeros(len(each)).numpy()
        places = range(len(each))
        for part in PARTS:
            axes.bar([p - 0.2 for p in places], each[part], 0.35, bottom=left, label=part)
            left = left + each[part].to_numpy()
        axes.bar([p + 0.2 for p in places], each["together"], 0.35, color="grey", label="together")
        axes.set_xticks(list(places), [str(each) for each in each["static tokens"]])
        axes.set(title=name, xlabel="static tokens", ylabel="ms a step and layer")
    key(grid[0])
    study.save(coexecution=figure)
    shown = frame.assign(overlap=100 * frame["overlap"]).rename(columns={"overlap": "overlap %"})
    about = (
        f"{sizes.tokens} keys, {sizes.heads} heads on {sizes.groups} KV heads of {sizes.width}, "
        f"bfloat16; {sizes.retrieve} retrieved; static part on {frame['device'].iloc[0]}"
    )
    study.table(frame.round(4), about, {"Milliseconds of a step": shown})


if __name__ == "__main__":
    sys.exit(launch(main))
