"""How long a decode step and the index of each method take, on this machine. See README.md.

python experiments/step_time/study.py --out experiments/step_time
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field, replace
from itertools import cycle
from typing import TYPE_CHECKING, Any

import torch

from longspan.methods.faiss_hnsw import FaissHnsw
from longspan.methods.faiss_ivf import FaissIvf
from longspan.methods.full import Full
from longspan.methods.hybrid import Hybrid
from longspan.methods.loki import Loki
from longspan.methods.magicpig import MagicPIG
from longspan.methods.pqcache import PQCache
from longspan.methods.quest import Quest
from longspan.methods.retrieval_attention import RetrievalAttention
from longspan.methods.retroinfer import RetroInfer
from longspan.methods.shadowkv import ShadowKV
from longspan.methods.snapkv import SnapKV
from longspan.methods.streaming_llm import StreamingLLM
from longspan.studies.once import adopted
from longspan.studies.plots import curves, key, panels
from longspan.studies.study import Study, begin, launch
from longspan.studies.timing import best_seconds
from longspan.types import LayerGeometry

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import pandas as pd
    from torch import Tensor

    from longspan.methods.base import Method

STATIC: dict[str, Any] = {"sink_tokens": 4, "local_tokens": 64}
ALIKE: dict[str, Any] = {**STATIC, "dense_layers": ()}

WAYS: dict[str, Callable[[float], Method]] = {
    "full": lambda share: Full(),
    "retroinfer": lambda share: replace(
        RetroInfer(), retrieval_budget=share, min_clusters=1, tolerance=0.0, **STATIC
    ),
    "quest": lambda share: replace(Quest(), retrieval_budget=share, **ALIKE),
    "shadowkv": lambda share: replace(ShadowKV(), retrieval_budget=share, **STATIC),
    "pqcache": lambda share: replace(PQCache(), retrieval_budget=share, **ALIKE),
    "pqcache, 4 parts of 8 bits": lambda share: replace(
        PQCache(), retrieval_budget=share, parts=4, bits=8, **ALIKE
    ),
    "loki": lambda share: replace(Loki(), retrieval_budget=share, **ALIKE),
    "magicpig": lambda share: replace(MagicPIG(), **ALIKE),
    "snapkv": lambda share: replace(SnapKV(), budget=share),
    "streaming_llm": lambda share: replace(StreamingLLM(), budget=share),
    "retrieval_attention": lambda share: replace(
        RetrievalAttention(), top_tokens=None, retrieval_budget=share, **ALIKE
    ),
    "retrieval_attention, 100 tokens": lambda share: replace(RetrievalAttention(), **ALIKE),
    "hybrid": lambda share: replace(Hybrid(), top_tokens=None, retrieval_budget=share, **ALIKE),
    "hybrid, 100 tokens": lambda share: replace(Hybrid(), **ALIKE),
    "faiss_ivf": lambda share: replace(
        FaissIvf(), top_tokens=None, retrieval_budget=share, **ALIKE
    ),
    "faiss_hnsw": lambda share: replace(
        FaissHnsw(), top_tokens=None, retrieval_budget=share, **ALIKE
    ),
}
PROMPT_QUERIES = 2048


@dataclass(frozen=True)
class Sizes:
    """Defaults of the command line."""

    tokens: tuple[int, ...] = (8192, 32_768, 131_072)
    hnsw: int = field(default=32_768, metadata={"least": 0})
    """Most tokens that HNSW is built over."""
    heads: int = 32
    kv_heads: int = 8
    head_size: int = 128
    share: float = field(default=0.018, metadata={"most": 1})
    """Of the context, retrieved by those that have a budget."""
    spread: float = 1.5
    """Length of a query's part along the key that it looks for."""
    steps: int = 8
    rounds: int = 3


@dataclass(frozen=True)
class Layer:
    """A prompt of one layer in bfloat16, queries of its end, and those of N steps."""

    geometry: LayerGeometry
    kv_GTDs: tuple[Tensor, Tensor]
    prompt_HSD: Tensor
    steps_NHD: Tensor

    @classmethod
    def made(cls, tokens: int, sizes: Sizes) -> Layer:
        """Keys in spots of 32 neighbours; every query looks for one of them."""
        generator = torch.Generator().manual_seed(tokens)
        groups, heads, width = sizes.kv_heads, sizes.heads, sizes.head_size

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator)

        spots_GSD = normal(groups, tokens // 32 + 1, width)
        k_GTD = spots_GSD.repeat_interleave(32, 1)[:, :tokens] + normal(groups, tokens, width)

        def queries(count: int) -> Tensor:
            wanted_HN = torch.randint(tokens, (heads, count), generator=generator)
            group_H1 = torch.arange(heads)[:, None] // (heads // groups)
            return sizes.spread * k_GTD[group_H1, wanted_HN] + normal(heads, count, width)

        geometry = LayerGeometry(
            layer=0, query_heads=heads, kv_heads=groups, head_size=width, scale=width**-0.5,
            dtype=torch.bfloat16, device=torch.device("cpu"),
        )  # fmt: skip
        kv_GTDs = k_GTD.bfloat16(), normal(groups, tokens, width).bfloat16()
        steps_NHD = queries(sizes.steps).transpose(0, 1).bfloat16()
        return cls(geometry, kv_GTDs, queries(PROMPT_QUERIES).bfloat16(), steps_NHD)


def step(layer: Layer, name: str, sizes: Sizes) -> dict[str, Any]:
    """Build a method's state over the prompt, and take the time of its steps."""
    begun = time.perf_counter()
    state = adopted(WAYS[name](sizes.share), layer.geometry, layer.kv_GTDs, layer.prompt_HSD)
    build_s = time.perf_counter() - begun
    turns = cycle(layer.steps_NHD)
    seconds = best_seconds({"step": lambda: state.decode(next(turns))}, sizes.rounds * sizes.steps)
    work, memory = state.work(), state.memory()
    return {
        "method": name, "build_s": build_s, "step_ms": 1e3 * seconds["step"],
        "exact": work.exact_tokens, "index_bytes": memory["index_bytes"],
        "kv_bytes": memory["kv_bytes"],
    }  # fmt: skip


def rows(study: Study, sizes: Sizes) -> pd.DataFrame:
    """A row a length and method."""
    if sizes.heads % sizes.kv_heads:
        raise ValueError(f"--heads = {sizes.heads}: right would be a multiple of {sizes.kv_heads}")
    made: dict[int, Layer] = {}

    def unit(which: Sequence[Any]) -> list[dict[str, Any]]:
        tokens, name = which
        if tokens not in made:
            made.clear()  # one prompt at a time
            made[tokens] = Layer.made(tokens, sizes)
        return [{"tokens": tokens, **step(made[tokens], name, sizes)}]

    units = [
        (tokens, name)
        for tokens in sizes.tokens
        for name in WAYS
        if name != "faiss_hnsw" or tokens <= sizes.hnsw
    ]
    with torch.inference_mode():
        return study.rows(units, unit, model=None)


def main(arguments: Sequence[str]) -> None:
    """Measure what is missing, write table and figure."""
    study, sizes = begin(__file__, __doc__, Sizes(), arguments)
    frame = rows(study, sizes)
    full = frame[frame["method"] == "full"].set_index("tokens")["step_ms"]
    frame["times"] = frame["tokens"].map(full) / frame["step_ms"]
    frame["index"] = frame["index_bytes"] / frame["kv_bytes"]
    shown = frame.rename(
        columns={"step_ms": "step, ms", "times": "times as fast as full", "build_s": "build, s"}
    )
    shown["index, % of keys and values"] = 100 * shown["index"]
    figure, grid = panels(2)
    curves(grid[0], shown, "tokens", "step, ms", "method")
    curves(grid[1], shown, "tokens", "build, s", "method")
    key(grid[0])
    for axes in grid:
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
    study.save(step_time=figure)
    columns = [
        "tokens", "method", "step, ms", "times as fast as full", "exact", "build, s",
        "index, % of keys and values",
    ]  # fmt: skip
    about = (
        f"one layer, {sizes.heads} query heads, {sizes.kv_heads} KV heads of {sizes.head_size}, "
        f"bfloat16; {100 * sizes.share:g}% retrieved; {torch.get_num_threads()} threads"
    )
    study.table(frame.round(4), about, {"By length": shown[columns].round(2)})


if __name__ == "__main__":
    sys.exit(launch(main))
