"""Random-weight models of real geometries with a few layers, whose contexts are put in place of
being read.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from longspan.methods.base import StaticLayer
from longspan.models import checks
from longspan.models.compiled import CompiledLayers
from longspan.models.decoder import Decoder, Row
from longspan.models.huggingface import _attach
from longspan.models.rope import RotaryPin
from longspan.models.session import StoreSession

sys.path.append(str(Path(__file__).parents[2] / "kernels" / "bench"))
from ood_keys import ood_keys

if TYPE_CHECKING:
    from collections.abc import Sequence

    from longspan.methods.base import Method
    from longspan.models.decoder import Graphs
    from longspan.types import LayerGeometry, Partial

TRAIN, SMALL_VOCABULARY = 1024, 8192
CAPACITY = 256
"""Tokens that a context can still grow by."""


@dataclass(frozen=True)
class Geometry:
    """The sizes that decide the time of a step."""

    config: str
    layers: int
    hidden: int
    inner: int
    heads: int
    groups: int
    vocabulary: int
    size: int = 128

    @property
    def layer_bytes(self) -> int:
        """Weights of a layer, bfloat16."""
        attention = 2 * self.hidden * self.size * (self.heads + self.groups)
        return 2 * (attention + 3 * self.hidden * self.inner)

    @property
    def weight_bytes(self) -> int:
        """Weights of the whole model, bfloat16."""
        return self.layers * self.layer_bytes + 4 * self.hidden * self.vocabulary


GEOMETRIES = {
    "llama3_8b": Geometry("LlamaConfig", 32, 4096, 14336, 32, 8, 128256),
    "qwen25_7b": Geometry("Qwen2Config", 28, 3584, 18944, 28, 4, 152064),
    "qwen25_72b": Geometry("Qwen2Config", 80, 8192, 29568, 64, 8, 152064),
    "tiny": Geometry("LlamaConfig", 4, 64, 96, 4, 2, 500, 16),
}


@lru_cache(maxsize=1)
def decoder(
    name: str, layers: int, device: str, graphs: Graphs | str = "auto", *, compiled: bool = False
) -> Decoder:
    """The first `layers` layers; the vocabulary is cut, as its time is added by size."""
    import transformers

    shape = GEOMETRIES[name]
    config = getattr(transformers, shape.config)(
        hidden_size=shape.hidden,
        intermediate_size=shape.inner,
        num_hidden_layers=layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.groups,
        vocab_size=min(shape.vocabulary, SMALL_VOCABULARY),
        max_position_embeddings=1 << 21,
    )
    torch.manual_seed(0)
    with torch.device(device):
        module: Any = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    windows = checks.layer_windows(config)
    module = module.eval()
    found = _attach(module, windows, opaque=compiled)
    return Decoder(
        module=module,
        windows=windows,
        geometries=[geometry for geometry, _ in found],
        attentions=[attention for _, attention in found],
        rotary=RotaryPin(module),
        device=module.device,  # with its number, as tensors have it
        chunk_tokens=1 << 20,
        max_positions=None,
        graphs=graphs,  # type: ignore[arg-type]
        compiled=CompiledLayers(module, layers) if compiled else None,
    )


@lru_cache(maxsize=1)
def data(geometry: LayerGeometry, tokens: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Keys [G, T, D], their prefill queries [H, S, D] and decode queries [H, N, D], bfloat16, where
    the model is.
    """
    heads, here = geometry.query_heads // geometry.kv_heads, (geometry.device, torch.bfloat16)
    if geometry.head_size <= 32:  # too small for the generator: a test
        shape = (geometry.kv_heads, tokens, geometry.head_size)
        q_HSD = torch.randn(geometry.query_heads, TRAIN + 64, geometry.head_size).to(*here)
        return torch.randn(shape).to(*here), q_HSD[:, :TRAIN], q_HSD[:, TRAIN:]
    found = [
        ood_keys(tokens, train=TRAIN, heads=heads, size=geometry.head_size, seed=group)
        for group in range(geometry.kv_heads)
    ]
    return (
        torch.stack([each.keys_TD.to(*here) for each in found]),
        torch.cat([each.train_RSD.to(*here) for each in found]),
        torch.cat([each.test_RSD.to(*here) for each in found]),
    )


class ReplayedLayer(StaticLayer):
    """A layer of fixed buffers that sees the generator's queries, other ones at every place."""

    def __init__(self, layer: StaticLayer, queries_HND: torch.Tensor) -> None:
        self.layer, self.queries_NHD = layer, queries_HND.transpose(0, 1).contiguous()

    def prefetch(self) -> None:
        """See StaticLayer."""
        self.layer.prefetch()

    def step(
        self, q_BHD: torch.Tensor, k_BGD: torch.Tensor, v_BGD: torch.Tensor, at_B: torch.Tensor
    ) -> Partial:
        """See StaticLayer."""
        row_B = torch.arange(len(at_B), device=at_B.device)
        seen_BHD = self.queries_NHD[(at_B + 7 * row_B) % len(self.queries_NHD)]
        return self.layer.step(seen_BHD, k_BGD, v_BGD, at_B)

    def update(self, lengths: Sequence[int], decoding: Sequence[int]) -> None:
        """See StaticLayer."""
        self.layer.update(lengths, decoding)

    def abandon(self) -> None:
        """See StaticLayer."""
        self.layer.abandon()

    def settle(self, lengths: Sequence[int]) -> None:
        """See StaticLayer."""
        self.layer.settle(lengths)

    def release(self) -> None:
        """See StaticLayer."""
        self.layer.release()


class Replay:
    """A method whose decode steps see the generator's queries in place of the random model's."""

    guesses = False

    def __init__(self, method: Any, queries_HND: torch.Tensor) -> None:
        self.method, self.queries_HND = method, queries_HND
        self.place = getattr(method, "place", None)
        self.steps = 0

    def decode(self, states: Any, q_BHD: torch.Tensor) -> Partial:
        """See Method. Rows and steps look at different queries."""
        self.steps += 1
        count = self.queries_HND.shape[1]
        chosen = [(self.steps + 7 * row) % count for row in range(len(q_BHD))]
        seen_BHD = self.queries_HND[:, chosen].transpose(0, 1).contiguous()
        found: Partial = self.method.decode(states, seen_BHD)
        return found

    def static_obstacle(self, geometry: LayerGeometry) -> str | None:
        """See Method."""
        reason: str | None = self.method.static_obstacle(geometry)
        return reason

    def static_layer(self, states: Any, limits: Sequence[int]) -> ReplayedLayer:
        """See Method."""
        return ReplayedLayer(self.method.static_layer(states, limits), self.queries_HND)


def filled(
    base: Decoder, method: Method | Any, tokens: int, rows: int, room: int = CAPACITY
) -> tuple[StoreSession, Replay]:
    """A session of `rows` distinct contexts of `tokens` tokens, not sealed yet, with room for more:
    the same keys rolled by another distance in each row and layer, in memory of their own.
    """
    keys_GTD, train_HSD, test_HND = data(replace(base.geometries[0], layer=0), tokens)
    opened = []
    for row in range(rows):
        states = base.states(method)
        for layer, state in enumerate(states):
            rolled_GTD = keys_GTD.roll(997 * (row * len(states) + layer), 1)
            state.adopt(rolled_GTD, rolled_GTD.flip(-1), train_HSD)  # type: ignore[attr-defined]
        opened.append(Row(states, tokens))
    replay = Replay(method, test_HND)
    session = StoreSession(base, replay, opened, tokens + room)  # type: ignore[arg-type]
    return session, replay
