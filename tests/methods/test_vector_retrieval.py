"""RetrievalAttention and the FAISS methods in the shared frame."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from tests.methods.cases import assert_close, layer

from longspan.methods.faiss_flat import FaissFlat
from longspan.methods.faiss_hnsw import FaissHnsw
from longspan.methods.faiss_ivf import FaissIvf
from longspan.methods.retrieval_attention import RetrievalAttention

if TYPE_CHECKING:
    from longspan.methods.vector_retrieval import VectorRetrieval

pytest.importorskip("faiss", reason="the faiss extra is not installed")
SMALL: dict[str, Any] = {"sink_tokens": 4, "local_tokens": 16, "update_tokens": 40}
METHODS: dict[str, type[VectorRetrieval]] = {
    method.name: method for method in (RetrievalAttention, FaissFlat, FaissIvf, FaissHnsw)
}
MORE: dict[str, dict[str, Any]] = {
    "": {},
    "query_head": {"graph_per": "query_head"},
    "keys": {"metric": "keys", "storage": "bfloat16", "seeds": 0},
}


@pytest.mark.parametrize("shape", [{"groups": 1, "heads": 3}, {"groups": 2, "heads": 4}])
@pytest.mark.parametrize("name", METHODS)
def test_everything_in_the_budget_is_full_attention(name: str, shape: dict[str, int]) -> None:
    given = layer(347, size=16, **shape)
    state = METHODS[name](**SMALL, retrieval_budget=1.0).layer(given.geometry)
    given.prefill(state, 0, 100, 101, 243)
    state.seal()
    for position in range(243, 347):
        assert_close(given.step(state, position), given.oracle(position))
    assert state.work().exact_tokens == 347
    assert state.selection.retrieved is not None


@pytest.mark.parametrize("name", METHODS)
def test_the_best_tokens_are_read(name: str) -> None:
    given = layer(600, size=16, heads=3)
    state = METHODS[name](**SMALL, top_tokens=20).layer(given.geometry)
    given.prefill(state, 0, 500)
    state.seal()
    kept = []
    for position in range(500, 600):
        given.step(state, position)
        runs = state.selection.retrieved
        assert runs is not None
        assert state.work().exact_tokens <= 4 + 16 + 40 + 20
        assert state.work().distances > 0
        start, stop = 4, state.selection.steady[-1][0]
        right_HK = given.scores(position, position + 1)[:, start:stop].topk(20).indices + start
        for head, right in enumerate(right_HK.tolist()):
            row = runs.start_NK[head, : runs.count_N[head]].tolist()
            assert all(start <= slot < stop for slot in row)
            kept.append(len(set(row) & set(right)) / 20)
    least = {"faiss_flat": 1.0, "faiss_ivf": 0.5, "faiss_hnsw": 0.95, "retrieval_attention": 0.95}
    assert sum(kept) / len(kept) >= least[name]


@pytest.mark.parametrize("more", MORE)
def test_the_graph_and_its_ablations(more: str) -> None:
    given = layer(420, size=16, heads=2, dtype=torch.bfloat16)
    method = RetrievalAttention(**SMALL, top_tokens=30, **MORE[more])
    state = method.layer(given.geometry)
    given.prefill(state, 0, 200, 400)
    state.seal()
    twin = state.fork()
    for position in range(400, 420):
        assert given.step(state, position).out.isfinite().all()
    assert state.memory()["index_bytes"] > 0
    assert_close(given.step(twin, 400), given.step(twin.fork(), 400), 1.0)


def test_a_short_context_is_attended_in_full() -> None:
    given = layer(50, size=16)
    state = RetrievalAttention().layer(given.geometry)
    given.prefill(state, 0, 49)
    state.seal()
    assert_close(given.step(state, 49), given.oracle(49))
    assert state.selection.retrieved is None


def test_settings_outside_their_range_are_refused() -> None:
    for field, wrong in (("top_tokens", 0), ("retrieval_budget", 0.0), ("degree", 0), ("beam", 0)):
        with pytest.raises(ValueError, match=field):
            RetrievalAttention(**{field: wrong})
    with pytest.raises(ValueError, match="storage"):
        RetrievalAttention(storage="int3")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="probe_budget"):
        FaissIvf(probe_budget=1.5)
    with pytest.raises(ValueError, match="keys"):
        FaissHnsw(keys="upside_down")  # type: ignore[arg-type]
