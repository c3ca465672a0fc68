"""The methods where the model is on a GPU, keys and values beside it or in host memory."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tests.methods.cases import Layer, assert_close, layer

from longspan.methods.full import Full
from longspan.methods.h2o import H2O
from longspan.methods.hybrid import Hybrid
from longspan.methods.infinigen import InfiniGen
from longspan.methods.infllm import InfLLM
from longspan.methods.loki import Loki
from longspan.methods.magicpig import MagicPIG
from longspan.methods.oracle_topk import OracleTopK
from longspan.methods.oracle_topp import OracleTopP
from longspan.methods.pqcache import PQCache
from longspan.methods.random_k import RandomK
from longspan.methods.retroinfer import RetroInfer
from longspan.methods.streaming_llm import StreamingLLM
from longspan.types import Partial

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
METHODS = {
    "full": Full,
    "streaming_llm": lambda **given: StreamingLLM(budget=1.0, **given),
    "oracle_topk": lambda **given: OracleTopK(budget=1.0, **given),
    "oracle_topp": lambda **given: OracleTopP(coverage=1.0, **given),
    "random_k": lambda **given: RandomK(budget=1.0, **given),
    "h2o": lambda **given: H2O(kept_tokens=300, **given),
    "infllm": lambda **given: InfLLM(retrieval_budget=1.0, local_tokens=20, page_tokens=8, **given),
    "hybrid": lambda **given: Hybrid(retrieval_budget=1.0, update_tokens=40, **given),
    "infinigen": lambda **given: InfiniGen(
        retrieval_budget=1.0, alpha=1e6, update_tokens=40, dense_layers=(), **given
    ),
    "loki": lambda **given: Loki(retrieval_budget=1.0, update_tokens=40, **given),
    "pqcache": lambda **given: PQCache(retrieval_budget=1.0, update_tokens=40, **given),
    "retroinfer": lambda **given: RetroInfer(retrieval_budget=1.0, update_tokens=40, **given),
    "retroinfer, every option": lambda **given: RetroInfer(
        retrieval_budget=1.0,
        tail="segment_mean",
        vote="unmet",
        update_tokens=40,
        **given,
    ),
}


def on_gpu(given: Layer) -> Layer:
    q, k, v = (tensor.cuda() for tensor in (given.q_HTD, given.k_GTD, given.v_GTD))
    return Layer(replace(given.geometry, device=q.device), q, k, v)


@pytest.mark.parametrize("placement", ["cpu", "gpu"])
@pytest.mark.parametrize("name", METHODS)
def test_a_full_budget_is_full_attention(name: str, placement: str) -> None:
    given = layer(300, groups=2, heads=3, size=16)
    there = on_gpu(given)
    state = METHODS[name](placement=placement).layer(there.geometry)
    there.prefill(state, 0, 100, 101, 250)
    state.seal()
    assert state.store.device.type == ("cpu" if placement == "cpu" else "cuda")
    for position in range(250, 300):
        found = there.step(state, position)
        assert found.out.device.type == found.lse.device.type == "cuda"
        assert_close(Partial(found.out.cpu(), found.lse.cpu()), given.oracle(position), 1e-4)
    twin = state.fork()
    assert_close(twin.decode(there.q_HTD[:, -1]), state.decode(there.q_HTD[:, -1]))


SPARSE = {
    "h2o": lambda **given: H2O(kept_tokens=40, **given),
    "infllm": lambda **given: InfLLM(
        sink_tokens=3, local_tokens=20, page_tokens=8, update_tokens=8, top_tokens=30, **given
    ),
}


@pytest.mark.parametrize("placement", ["cpu", "gpu"])
@pytest.mark.parametrize("name", SPARSE)
def test_what_is_received_there_chooses_as_here(name: str, placement: str) -> None:
    given = layer(260, groups=2, heads=3, size=16)
    there, steps = on_gpu(given), []
    for one in (given, there):
        state = SPARSE[name](placement=placement).layer(one.geometry)
        one.prefill(state, 0, 60, 200)
        state.seal()
        steps.append([one.step(state, position) for position in range(200, 260)])
    for right, found in zip(*steps, strict=True):
        assert_close(Partial(found.out.cpu(), found.lse.cpu()), right, 1e-4)


@pytest.mark.parametrize("name", ["magicpig", "pqcache"])
def test_codes_and_tables_find_there_what_they_find_here(name: str) -> None:
    small = {"sink_tokens": 3, "local_tokens": 8}
    method = (
        MagicPIG(**small, bits=3, tables=12, dense_layers=(), placement="gpu")
        if name == "magicpig"
        else PQCache(**small, update_tokens=4, bits=8, retrieval_budget=0.1, placement="gpu")
    )
    given = layer(162, groups=2, heads=3, size=16)
    there = on_gpu(given)
    steps = []
    for one in (given, there):
        state = method.layer(one.geometry)
        one.prefill(state, 0, 60, 150)
        state.seal()
        steps.append([one.step(state, position) for position in range(150, 162)])
    for right, found in zip(*steps, strict=True):
        assert found.out.device.type == "cuda"
        assert_close(Partial(found.out.cpu(), found.lse.cpu()), right, 1e-4)
