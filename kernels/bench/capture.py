"""Records keys and queries of a model for the benchmarks: post-RoPE, as the indexes see them.

    python kernels/bench/capture.py                     the embedded model, 32k tokens of prose
    python kernels/bench/capture.py --ctx 131072        takes minutes
    python kernels/bench/capture.py --model results/nano/export --layers 1 3

Writes results/.data/attention_<ctx>_layer<l>_head<g>.safetensors: `keys` [T, D] without the first
128 and last 512, `train` [R, S, D] a sample of the prompt's queries, `test` [N, R, D] those of N
greedy steps.
"""

from __future__ import annotations

import argparse
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
        super().__init__(geometry, "device")
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


def write(path: Path, state: LayerState, test_NHD: Tensor, head: int, tokens: int) -> None:
    """One KV head of one layer."""
    from safetensors.torch import save_file

    assert isinstance(state, RecordedState)
    sampled_HSD = state.sample.queries()
    assert sampled_HSD is not None
    groups = state.geometry.kv_heads
    keys = torch.cat([part.keys_GTD[head] for part in state.store.parts])[SINK : tokens - LOCAL]
    parts = {
        "keys": keys.contiguous(),
        "train": sampled_HSD.chunk(groups)[head].contiguous(),
        "test": test_NHD.chunk(groups, dim=1)[head].contiguous(),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(parts, path)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description="Record keys and queries for the benchmarks.")
    parser.add_argument("--model", default="nano")
    parser.add_argument("--ctx", type=int, default=32_768)
    parser.add_argument("--steps", type=int, default=64)
    parser.add_argument("--layers", type=int, nargs="+", help="default: the middle and the last")
    given = parser.parse_args()
    model = HuggingFace(path=given.model).load()
    prose = " ".join(synthetic_words(0, given.ctx))
    ids = list(model.tokenizer.encode(prose))[: given.ctx]
    session = model.session(Recorded(), max_tokens=given.ctx + given.steps)
    with torch.inference_mode():
        queries = read(session, ids, given.steps)
    count = len(model.geometries)
    for place in given.layers or (count // 2, count - 1):
        layer = model.geometries[place].layer
        for head in range(model.geometries[place].kv_heads):
            path = OUT / f"attention_{len(ids)}_layer{layer}_head{head}.safetensors"
            write(path, session.states[place][0], torch.stack(queries[layer]), head, len(ids))
            print(path)


if __name__ == "__main__":
    main()
