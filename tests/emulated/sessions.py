"""Sessions of every method with decode steps of fixed shape, and of some whose states decode
between graphs: graphs on the emulated GPU say what states on the CPU say.
"""

from __future__ import annotations

import atexit
import operator
import shutil
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any

import torch
from tests.tiny_models import MIXED, save_tiny

from longspan.methods.full import Full
from longspan.methods.h2o import H2O
from longspan.methods.hybrid import Hybrid
from longspan.methods.infinigen import InfiniGen
from longspan.methods.infllm import InfLLM
from longspan.methods.loki import Loki
from longspan.methods.magicpig import MagicPIG
from longspan.methods.oracle_topk import OracleTopK
from longspan.methods.pqcache import PQCache
from longspan.methods.quest import Quest
from longspan.methods.retrieval_attention import RetrievalAttention
from longspan.methods.retroinfer import RetroInfer
from longspan.methods.shadowkv import ShadowKV
from longspan.methods.snapkv import SnapKV
from longspan.methods.streaming_llm import StreamingLLM
from longspan.models import graphs, static
from longspan.models.huggingface import HuggingFace

if TYPE_CHECKING:
    from longspan.methods.base import Method

LENGTHS = (22, 7)
STEPS = 5
NEAR: dict[str, Any] = {
    "placement": "gpu", "sink_tokens": 2, "local_tokens": 4, "update_tokens": 4,
}  # fmt: skip
BUFFER: dict[str, Any] = {**NEAR, "placement": "wave_buffer", "cache_budget": 0.5}
WAVE: dict[str, Any] = {
    "segment_tokens": 64, "tokens_per_cluster": 4, "retrieval_budget": 0.2,
    "estimation_budget": 0.4, "kmeans_rounds": 2,
}  # fmt: skip
CHUNKS: dict[str, Any] = {"page_tokens": 4, "outlier_budget": 0.1, "retrieval_budget": 0.3}
# tokens whose codes are equal weigh the same, and either may be read: of these there are none
PQ: dict[str, Any] = {"parts": 4, "bits": 4, "retrieval_budget": 0.3, "kmeans_rounds": 2}
METHODS: dict[str, Method] = {
    "full": Full(placement="gpu"),
    "retroinfer": RetroInfer(**WAVE, **NEAR),
    "retroinfer, wave_buffer": RetroInfer(**WAVE, **BUFFER),
    "quest": Quest(page_tokens=4, dense_layers=(), retrieval_budget=0.3, **NEAR),
    "quest, wave_buffer": Quest(
        page_tokens=4, dense_layers=(), retrieval_budget=0.3, share="kv_head", **BUFFER
    ),
    "shadowkv": ShadowKV(**CHUNKS, **NEAR),
    "shadowkv, wave_buffer": ShadowKV(**CHUNKS, **BUFFER),
    "loki": Loki(retrieval_budget=0.2, candidates=1.5, **NEAR),
    "pqcache": PQCache(**PQ, **NEAR),
    "pqcache, wave_buffer": PQCache(**PQ, **BUFFER),
    "hybrid": Hybrid(segment_tokens=64, tokens_per_cluster=4, top_tokens=5, **NEAR),
    "hybrid, wave_buffer": Hybrid(
        segment_tokens=64, tokens_per_cluster=4, top_tokens=5, estimation_budget=0.5, **BUFFER
    ),
    "h2o": H2O(budget=0.4, placement="gpu"),
    "infllm": InfLLM(page_tokens=4, representatives=2, retrieval_budget=0.3, **NEAR),
    "infllm, wave_buffer": InfLLM(page_tokens=4, representatives=2, retrieval_budget=0.3, **BUFFER),
    "magicpig": MagicPIG(
        sink_tokens=2, local_tokens=4, bits=2, tables=4, dense_layers=(), placement="gpu"
    ),
    "snapkv": SnapKV(budget=0.3, window_tokens=8, placement="gpu"),
    "streaming_llm": StreamingLLM(budget=0.3, sink_tokens=2, placement="gpu"),
    "full, gemma3": Full(placement="gpu"),
    "full, host memory": Full(placement="cpu"),
    "oracle_topk": OracleTopK(budget=0.3, sink_tokens=2, local_tokens=4),
    "infinigen": InfiniGen(dense_layers=(), rank=0.5, retrieval_budget=0.3, **NEAR),
    "retrieval_attention": RetrievalAttention(top_tokens=5, **{**NEAR, "placement": "cpu"}),
}
FAMILIES = {"full, gemma3": "gemma3"}
"""Its first layer slides over twelve tokens, its second does not."""
TWO_LAYERS = ("quest, wave_buffer", "infinigen", "retrieval_attention", *FAMILIES)
"""Layers share a cache, or one knows of the other. Two of them are as slow as two methods."""
GRAPHS = {"full, host memory": 2, "oracle_topk": 2, "infinigen": 3, "retrieval_attention": 3}
"""Where states decode between them."""
WITHOUT_INDEX = {"full", "full, host memory", "h2o", "magicpig", "oracle_topk", "snapkv"}
GROWING = METHODS.keys() - WITHOUT_INDEX - FAMILIES.keys() - {"streaming_llm"}
"""An index of the first layer takes tokens in between the first step and the last."""


@cache
def folder(layers: int, family: str) -> Path:
    """Of a random model."""
    static.AHEAD_TOKENS = 24  # room that is enough here; plain torch computes all of it
    graphs.WARM_UP = 0  # nothing is compiled
    path = Path(mkdtemp())
    atexit.register(shutil.rmtree, path)
    kinds = {"layer_types": MIXED[:layers]} if family in FAMILIES.values() else {}
    return save_tiny(family, path, num_hidden_layers=layers, head_dim=8, **kinds)


@cache
def model(device: str, graphs: str, layers: int = 1, family: str = "llama", **more: Any) -> Any:
    """The same on each device."""
    options: dict[str, Any] = {"device": device, "graphs": graphs, **more}
    made = HuggingFace(path=str(folder(layers, family)), dtype="float32", **options).load()
    if family not in FAMILIES.values():  # moved to this GPU, tied weights are tied no more
        with torch.no_grad():  # it is zero there, so that to such a query all pages are alike
            made._decoder.module.get_input_embeddings().weight[0, ::2] = 0.7
    return made


def prompts(seed: int, lengths: tuple[int, ...]) -> list[list[int]]:
    noise = torch.Generator().manual_seed(seed)
    return [torch.randint(3, 320, (length,), generator=noise).tolist() for length in lengths]


def steps(session: Any, count: int, seed: int) -> list[torch.Tensor]:
    """The logits of given tokens, as the host has them."""
    rows = len(session.lengths)
    tokens = zip(*prompts(seed, (count,) * rows), strict=True)
    # what a step returns, the next one overwrites
    return [session.decode(list(each)).cpu() for each in tokens]


def indexed(session: Any) -> list[Any]:
    """By row, what its index covers."""
    return [state.indexed for state in session.states[0]]


def loaded(name: str, device: str, graphs: str) -> Any:
    """The model that a method is tried on."""
    return model(device, graphs, 2 if name in TWO_LAYERS else 1, FAMILIES.get(name, "llama"))


def life(name: str, model: Any) -> tuple[list[torch.Tensor], Any]:
    """What a session says: a prompt, steps in which indexes grow, a fork, and another turn."""
    session = model.session(METHODS[name], len(LENGTHS))
    said = [session.prefill(prompts(7, LENGTHS)).cpu()]
    said += steps(session, 1, 1)
    before = indexed(session) if name in GROWING else []
    said += steps(session, STEPS - 1, 2)
    assert not before or all(map(operator.ne, before, indexed(session)))
    twin = session.fork(1)
    said += steps(twin, 1, 3) + steps(session, 1, 4)
    said.append(session.prefill([[20, 21, 22], []]).cpu())
    return said + steps(session, 1, 5), session


def same(found: list[torch.Tensor], right: list[torch.Tensor]) -> None:
    """Raises AssertionError that says which step differs."""
    torch.testing.assert_close(found, right, atol=2e-4, rtol=1e-4)


def agree(name: str) -> None:
    """Raises AssertionError where both lives differ."""
    right, _ = life(name, loaded(name, "cpu", "off"))
    found, session = life(name, loaded(name, "cuda", "on"))
    assert session.steps_by == f"{GRAPHS[name]} graphs" if name in GRAPHS else "graph"
    same(found, right)
    assert "wave_buffer" not in name or session.states[0][0].placement.traffic.hit_entries > 0
