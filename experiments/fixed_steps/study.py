"""How long a layer's decode step of fixed shape takes, by method. See README.md.

python experiments/fixed_steps/study.py --out experiments/fixed_steps
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from longspan.methods.full import Full
from longspan.methods.h2o import H2O
from longspan.methods.hybrid import Hybrid
from longspan.methods.infllm import InfLLM
from longspan.methods.loki import Loki
from longspan.methods.magicpig import MagicPIG
from longspan.methods.pqcache import PQCache
from longspan.methods.quest import Quest
from longspan.methods.retroinfer import RetroInfer
from longspan.methods.shadowkv import ShadowKV
from longspan.methods.snapkv import SnapKV
from longspan.methods.streaming_llm import StreamingLLM
from longspan.studies.fixed_steps import Prompt, Steps
from longspan.studies.plots import curves, key, panels
from longspan.studies.study import begin, launch
from longspan.types import LayerGeometry

sys.path.insert(0, str(Path(__file__).parents[1] / "throughput"))
from model import data

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from longspan.methods.base import Method

WAYS: dict[str, Method] = {
    "full": Full(),
    "retroinfer": RetroInfer(),
    "quest": Quest(dense_layers=()),
    "shadowkv": ShadowKV(),
    "pqcache": PQCache(),
    "loki": Loki(),
    "magicpig": MagicPIG(dense_layers=()),
    "hybrid": Hybrid(),
    "infllm": InfLLM(),
    "h2o": H2O(),
    "snapkv": SnapKV(),
    "streaming_llm": StreamingLLM(),
    "retroinfer:wave_buffer": RetroInfer(placement="wave_buffer"),
    "quest:wave_buffer": Quest(dense_layers=(), share="kv_head", placement="wave_buffer"),
    "shadowkv:wave_buffer": ShadowKV(placement="wave_buffer"),
    "pqcache:wave_buffer": PQCache(placement="wave_buffer"),
    "hybrid:wave_buffer": Hybrid(placement="wave_buffer"),
    "infllm:wave_buffer": InfLLM(placement="wave_buffer"),
}
"""By their defaults, but none leaves a layer dense, and keys and values are where the model is."""
BYTES = ["KV MB read", "index MB read"]


@dataclass(frozen=True)
class Sizes:
    """Defaults of the command line."""

    tokens: tuple[int, ...] = field(default=(30_000, 120_000), metadata={"least": 2})
    prompts: tuple[int, ...] = (1, 4)
    methods: tuple[str, ...] = field(default=tuple(WAYS), metadata={"among": WAYS})
    """Full attention is measured beside them."""
    heads: int = 32
    kv_heads: int = 8
    head_size: int = 128
    warmup: int = field(default=3, metadata={"least": 0})
    steps: int = 48
    device: str = field(default="auto", metadata={"among": ("auto", "cpu", "cuda")})

    def __post_init__(self) -> None:
        if self.heads % self.kv_heads:
            right = f"a multiple of --kv-heads = {self.kv_heads}"
            raise ValueError(f"--heads = {self.heads}: right would be {right}")

    def here(self) -> torch.device:
        """The device, with its number. Raises ValueError where there is none."""
        cuda = torch.cuda.is_available()
        if self.device == "cuda" and not cuda:
            raise ValueError("--device = 'cuda': there is none here; right would be cpu")
        return torch.device("cuda", 0) if cuda and self.device != "cpu" else torch.device("cpu")

    def geometry(self, device: torch.device) -> LayerGeometry:
        """Of the layer."""
        return LayerGeometry(
            layer=0, query_heads=self.heads, kv_heads=self.kv_heads, head_size=self.head_size,
            scale=self.head_size**-0.5, dtype=torch.bfloat16, device=device,
        )  # fmt: skip


Unit = tuple[int, int, str]


def measure(unit: Unit, sizes: Sizes, device: torch.device) -> list[dict[str, Any]]:
    """The row of a cell. What cannot be measured here is a row that says why."""
    tokens, prompts, name = unit
    row: dict[str, Any] = {"tokens": tokens, "prompts": prompts, "method": name}
    method, geometry = WAYS[name], sizes.geometry(device)
    if hasattr(method, "placement") and ":" not in name:
        method = replace(method, placement="gpu")  # type: ignore[type-var]
    if (reason := method.static_obstacle(geometry)) is not None:
        return [{**row, "note": reason}]
    try:
        prompt = Prompt(geometry, tokens, *data(geometry, tokens))
        steps = Steps(method, prompt, prompts, sizes.warmup + sizes.steps)
        return [{**row, **steps.taken(sizes.warmup, sizes.steps), "note": ""}]
    except getattr(torch, "AcceleratorError", ()):
        raise  # no other row would be right after it
    except Exception as error:  # a kernel too large for the device is no RuntimeError
        return [{**row, "note": (str(error) or type(error).__name__).splitlines()[0][:120]}]


def beside_full(frame: pd.DataFrame) -> pd.DataFrame:
    """With each time and each byte count as what full attention takes and reads in the same run."""
    for name in ("us a step", *BYTES):
        if name not in frame:
            frame[name] = float("nan")
    where = ["tokens", "prompts"]
    read = frame[BYTES].sum(axis=1, min_count=2)
    frame["GB/s"] = read * 1e3 / frame["us a step"]
    full = frame[where].assign(full_us=frame["us a step"], full_mb=read)
    full = full[frame["method"] == "full"]
    both = frame[where].merge(full, on=where, how="left")
    frame["times as fast as full"] = both["full_us"] / frame["us a step"]
    frame["bytes, of full's"] = read / both["full_mb"]
    return frame


def main(arguments: Sequence[str]) -> None:
    """Measure what is missing; write table and figure."""
    study, sizes = begin(__file__, __doc__, Sizes(), arguments)
    device = sizes.here()
    names = dict.fromkeys(("full", *sizes.methods))
    units = [(t, b, name) for t in sizes.tokens for b in sizes.prompts for name in names]
    with torch.inference_mode():
        call = partial(measure, sizes=sizes, device=device)
        shown = beside_full(study.rows(units, call, model=None))
    figure, grid = panels(len(sizes.prompts))
    for prompts, axes in zip(sizes.prompts, grid, strict=True):
        own = shown[shown["prompts"] == prompts].dropna(subset=["us a step"])
        curves(axes, own, "tokens", "us a step", "method")
        axes.set(title=f"{prompts} prompts", xscale="log", yscale="log")
    key(grid[-1])
    study.save(figure=figure)
    about = (
        f"one layer, {sizes.heads} query heads, {sizes.kv_heads} KV heads of {sizes.head_size}, "
        f"bfloat16, on {device.type}; medians of {sizes.steps} steps"
    )
    study.table(shown, about, {"Steps of fixed shape": shown})


if __name__ == "__main__":
    sys.exit(launch(main))
