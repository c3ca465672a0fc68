"""Records keys and queries of a model for the benchmarks: post-RoPE, as the indexes see them.

    python kernels/bench/capture.py                     the embedded model, 32k tokens of prose
    python kernels/bench/capture.py --ctx 131072        takes minutes
    python kernels/bench/capture.py --model FOLDER

Writes results/.data/attention_<weights>_<ctx>.safetensors; by layer and KV head: `keys` [T, D]
without the first 128 and last 512, `train` [R, S, D] a sample of the prompt's queries, `test`
[N, R, D] those of N greedy steps. The graph's benchmark calls it by itself.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import torch

from longspan.methods.base import Method
from longspan.methods.frame import StoredState
from longspan.methods.queries import QuerySample
from longspan.models.huggingface import HuggingFace
from longspan.tasks.haystack import synthetic_words

if TYPE_CHECKING:
    from torch import Tensor

    from longspan.methods.base import LayerState
    from longspan.models.base import Session
    from longspan.types import LayerGeometry, Partial

SINK, LOCAL = 128, 512
OUT = Path(__file__).parents[2] / "results" / ".data"


class RecordedState(StoredState):
    """Full attention that keeps a sample of the queries it saw."""

    def __init__(self, geometry: LayerGeometry) -> None:
        super().__init__(geometry, "cpu")
        self.sample = QuerySample(window=512, cap=2048)

    def prefill(self, q_HQD: Tensor, k_GQD: Tensor, v_GQD: Tensor) -> Partial:
        """See LayerState."""
        self.sample.add(q_HQD)
        return super().prefill(q_HQD, k_GQD, v_GQD)


class Recorded(Method):
    """Full attention, recorded."""

    name: ClassVar[str] = "recorded"

    def layer(self, geometry: LayerGeometry) -> RecordedState:
        """See Method."""
        return RecordedState(geometry)


def read(session: Session, ids: list[int], steps: int) -> dict[int, list[Tensor]]:
    """Read the prompt, take greedy steps; the decode queries [H, D] by layer."""
    queries: dict[int, list[Tensor]] = defaultdict(list)

    def observe(layer: int, row: int, state: LayerState, q_HD: Tensor, partial: Partial) -> None:
        queries[layer].append(q_HD.float().clone())

    logits_BV = session.prefill([ids])
    session.observer = observe
    for _ in range(steps):
        logits_BV = session.decode([int(logits_BV[0].argmax())])
    return queries


def record(path: str, ctx: int, steps: int) -> dict[tuple[int, int], dict[str, Tensor]]:
    """Let the model read `ctx` tokens of prose; what it attended, by layer and KV head."""
    model = HuggingFace(path=path).load()
    prose = " ".join(synthetic_words(0, ctx))
    ids = list(model.tokenizer(prose).input_ids)[:ctx]
    session = model.session(Recorded(), max_tokens=len(ids) + steps)
    with torch.inference_mode():
        queries = read(session, ids, steps)
    found = {}
    for geometry, (state, *_) in zip(model.geometries, session.states, strict=True):
        test_NHD = torch.stack(queries[geometry.layer])
        for head in range(geometry.kv_heads):
            found[geometry.layer, head] = parts_of(state, test_NHD, head, len(ids))
    return found


def parts_of(state: LayerState, test_NHD: Tensor, head: int, tokens: int) -> dict[str, Tensor]:
    """One KV head of one layer."""
    assert isinstance(state, RecordedState)
    sampled_HSD = state.sample.queries()
    assert sampled_HSD is not None
    groups = state.geometry.kv_heads
    keys_TD = torch.cat([part.keys_GTD[head] for part in state.store.parts])[SINK : tokens - LOCAL]
    return {
        "keys": keys_TD.contiguous(),
        "train": sampled_HSD.chunk(groups)[head].contiguous(),
        "test": test_NHD.chunk(groups, dim=1)[head].contiguous(),
    }


def recorded(path: str, ctx: int, steps: int = 64) -> dict[tuple[int, int], dict[str, Tensor]]:
    """What `record` gives, kept in a file of these weights."""
    from safetensors.torch import load_file, save_file

    weights = HuggingFace(path=path).load().identity()["weights"]
    file = OUT / f"attention_{weights}_{ctx}.safetensors"
    if not file.exists():
        print(f"{path} reads {ctx:,} tokens; beyond 100,000 that takes minutes", file=sys.stderr)
        parts = record(path, ctx, steps)
        file.parent.mkdir(parents=True, exist_ok=True)
        flat = {f"{k[0]}.{k[1]}.{n}": t for k, named in parts.items() for n, t in named.items()}
        save_file(flat, file)
    found: dict[tuple[int, int], dict[str, Tensor]] = defaultdict(dict)
    for key, tensor in load_file(file).items():
        layer, head, name = key.split(".")
        found[int(layer), int(head)][name] = tensor
    return found


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description="Record keys and queries for the benchmarks.")
    parser.add_argument("--model", default="nano")
    parser.add_argument("--ctx", type=int, default=32_768)
    parser.add_argument("--steps", type=int, default=64)
    given = parser.parse_args()
    recorded(given.model, given.ctx, given.steps)


if __name__ == "__main__":
    main()
