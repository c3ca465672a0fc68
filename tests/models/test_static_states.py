"""Steps whose graphs hold the model alone: states decode between them."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import pytest
import torch
from tests.models.static_steps import LENGTHS, greedy, sessions

from longspan.methods.full import Full
from longspan.methods.hybrid import Hybrid
from longspan.methods.infinigen import InfiniGen
from longspan.methods.loki import Loki
from longspan.methods.oracle_topk import OracleTopK
from longspan.methods.pqcache import PQCache
from longspan.methods.quest import Quest
from longspan.methods.random_k import RandomK
from longspan.methods.retrieval_attention import RetrievalAttention
from longspan.methods.retroinfer import RetroInfer
from longspan.methods.shadowkv import ShadowKV
from longspan.models.pieces import never
from longspan.models.static_states import StaticStates
from longspan.types import LayerGeometry

if TYPE_CHECKING:
    from tests.models.dense import Load

    from longspan.methods.base import Method

NEAR: dict[str, Any] = {"update_tokens": 16, "local_tokens": 8}
METHODS: dict[str, Method] = {
    "retrieval_attention": RetrievalAttention(top_tokens=10, **NEAR),
    "hybrid": Hybrid(tokens_by="graph", top_tokens=10, segment_tokens=64, **NEAR),
    "oracle_topk": OracleTopK(budget=0.2),
    "random_k": RandomK(budget=0.2),
    "retroinfer": RetroInfer(tail="segment_mean", placement="gpu", **NEAR),
    "quest": Quest(placement="wave_buffer", cache_budget=0.5, page_tokens=4, **NEAR),
    "infinigen": InfiniGen(retrieval_budget=0.2, dense_layers=(0,), **NEAR),
    "infinigen, alpha": InfiniGen(alpha=2.0, retrieval_budget=0.4, dense_layers=(), **NEAR),
}
OBSTACLES: list[tuple[Method, str]] = [
    (RetrievalAttention(), "'retrieval_attention' has no decode step of fixed shapes"),
    (Loki(placement="wave_buffer"), "'wave_buffer' reads by KV head"),
    (Quest(placement="wave_buffer"), "method.share = 'query_head'"),
    (ShadowKV(placement="wave_buffer", dense_layers=(1,)), "layer 1 reads all of host memory"),
    (PQCache(placement="wave_buffer", share="query_head"), "which reads by KV head"),
    (RetroInfer(tail="segment_mean"), "method.tail = 'segment_mean'"),
    (RetroInfer(clusters_per_group=8), "method.clusters_per_group = 8"),
    (Hybrid(tokens_by="graph"), "method.tokens_by = 'graph' walks on a CPU"),
]


@pytest.mark.parametrize(("method", "reason"), OBSTACLES)
def test_why_a_method_has_no_buffers_is_said(method: Method, reason: str) -> None:
    layer = LayerGeometry(1, 4, 2, 16, 0.25, torch.float32, torch.device("cpu"))
    assert reason in str(method.static_obstacle(layer))


@pytest.mark.skipif(not find_spec("faiss"), reason="faiss is not installed")
def test_an_index_of_faiss(load: Load) -> None:
    from longspan.methods.faiss_flat import FaissFlat

    right, found = sessions(load, FaissFlat(retrieval_budget=0.2, **NEAR))
    assert torch.equal(torch.stack(greedy(right, 30)), torch.stack(greedy(found, 30)))


@pytest.mark.parametrize("name", METHODS)
def test_it_says_what_the_states_say(load: Load, name: str) -> None:
    """Turns, views, forks and tapes included, to the last bit; what a row does is what it does."""
    said, tapes = [], []
    for session in sessions(load, METHODS[name], family="gemma3"):
        session.record()
        told = greedy(session, 20)
        told += greedy(session.select([2, 0]), 3)
        told += greedy(session.fork(1), 4)
        told += greedy(session, 3)
        told.append(session.prefill([[], [20, 21], list(range(20, 40))]))
        told += greedy(session, 4)
        said.append(told)
        tapes.append([session.recorded(row) for row in range(3)])
        works = [state.work() for layer in session.states for state in layer]
        assert all(work.exact_tokens > 0 for work in works)
    assert session._rows[0].static is not None
    assert session.steps_by == "states"
    for a_BV, b_BV in zip(*said, strict=True):  # a window's buffers round otherwise
        torch.testing.assert_close(a_BV, b_BV, atol=3e-4, rtol=1e-4)
    assert [len(each) for each in tapes[0]] == [len(each) for each in tapes[1]]


def test_layers_that_read_all_of_host_memory_are_states_alone(load: Load) -> None:
    method = PQCache(
        placement="wave_buffer", cache_budget=0.5, parts=16, bits=5, dense_layers=(1,),
        retrieval_budget=0.2, **NEAR,
    )  # fmt: skip
    both = sessions(load, method)
    for a_BV, b_BV in zip(*[greedy(session, 40) for session in both], strict=True):
        torch.testing.assert_close(a_BV, b_BV, atol=3e-4, rtol=1e-4)
    step: Any = both[1]._rows[0].static
    assert [isinstance(layer, StaticStates) for layer in step.layers] == [False, True, False]
    assert (both[1].steps_by, step.buffered) == ("buffers", False)


def test_layers_without_an_index_are_not_guessed_for(load: Load) -> None:
    _, session = sessions(load, METHODS["infinigen"])
    greedy(session, 1)
    step: Any = session._rows[0].static
    assert [layer.expects for layer in step.layers] == [False, True, True]


def test_warming_up_leaves_states_alone(load: Load) -> None:
    _, session = sessions(load, METHODS["oracle_topk"])
    greedy(session, 1)
    step = session._rows[0].static
    assert step is not None
    step.between.by = never
    with torch.inference_mode():
        step.step()
    assert [len(state.store) for state in session.states[0]] == [each + 1 for each in LENGTHS]


def test_what_is_interrupted_is_broken(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some layers hold a token that others do not; buffers would write it again."""
    _, session = sessions(load, METHODS["oracle_topk"])
    greedy(session, 1)
    step = session._rows[0].static
    assert step is not None

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(step.layers[1], "_decode", interrupted)
        with pytest.raises(KeyboardInterrupt):
            session.decode([5, 5, 5])
    with pytest.raises(RuntimeError, match="half-read"):
        session.decode([5, 5, 5])


def test_nothing_is_asked_for_buffers_that_are_not_made(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("longspan.models.room.available", lambda device: 1 << 40)
    for method, fits in ((OracleTopK(), True), (Full(), False)):
        session = load("llama", graphs="eager").session(method)
        session.prefill([[5, 6]])
        with monkeypatch.context() as patch:
            patch.setattr("longspan.models.room.available", lambda device: 1000)
            if fits:
                session.decode([7])
                continue
            with pytest.raises(ValueError, match=r"model\.graphs: buffers of 102 tokens"):
                session.decode([7])
