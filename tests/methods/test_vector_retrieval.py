"""RetrievalAttention and the FAISS methods in the shared frame."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import torch
from tests.methods.cases import assert_close, layer

from longspan.indexes.attention_graph import AttentionGraphIndex
from longspan.indexes.base import Budget, Segment
from longspan.indexes.hybrid import HybridIndex
from longspan.indexes.key_codes import CodeOptions, KeyCodesIndex
from longspan.indexes.wave import WaveIndex
from longspan.indexes.wave_options import WaveOptions
from longspan.methods.faiss_flat import FaissFlat
from longspan.methods.faiss_hnsw import FaissHnsw
from longspan.methods.faiss_ivf import FaissIvf
from longspan.methods.hybrid import Hybrid
from longspan.methods.infinigen import InfiniGen
from longspan.methods.loki import Loki
from longspan.methods.queries import QuerySample
from longspan.methods.retrieval_attention import RetrievalAttention

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.methods.cases import Layer

    from longspan.methods.retrieval import RetrievalState
    from longspan.methods.vector_retrieval import VectorRetrieval

pytest.importorskip("faiss", reason="the faiss extra is not installed")
SMALL: dict[str, Any] = {"sink_tokens": 4, "local_tokens": 16, "update_tokens": 40}
METHODS: dict[str, Callable[..., VectorRetrieval]] = {
    "retrieval_attention": RetrievalAttention,
    "faiss_flat": FaissFlat,
    "faiss_ivf": FaissIvf,
    "faiss_hnsw": FaissHnsw,
    "hybrid": Hybrid,
    "hybrid, graph": partial(Hybrid, tokens_by="graph"),
    "loki": Loki,
    "loki, whole": partial(Loki, rank=1.0),
    "loki as published": partial(Loki, metric="keys", candidates=1.0),
    "infinigen": partial(InfiniGen, dense_layers=(), rank=0.5),
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
def test_updates_equal_an_index_built_from_scratch_segment_by_segment(name: str) -> None:
    given, prompt, update = layer(520, size=16, heads=2), 243, SMALL["update_tokens"]
    method = METHODS[name](**SMALL, top_tokens=12)
    state = method.layer(given.geometry)
    given.prefill(state, 0, prompt)
    state.seal()
    for position in range(prompt, 520):
        given.step(state, position)

    fresh = method.index(given.geometry)
    learns, wants = fresh.learns, fresh.wants_queries
    stop = prompt - SMALL["local_tokens"]
    sample = QuerySample(*method.query_sample)
    sample.add(given.q_HTD[:, :prompt])
    fresh.build(segment(given, SMALL["sink_tokens"], stop, sample.queries() if wants else None))
    for position in range(prompt, 520):
        if position - SMALL["local_tokens"] - stop >= update:
            fresh.append(segment(given, stop, stop + update))
            stop += update
        if learns:
            fresh.remember(given.q_HTD[:, position])
    assert fresh.tokens == state.index.tokens == stop - SMALL["sink_tokens"] > 2 * update
    for position in range(0, 520, 40):
        q_HD = given.q_HTD[:, position]
        if learns:  # both walks begin without a step before
            state.index.remember(q_HD)
            fresh.remember(q_HD)
        found, right = (
            index.search(q_HD, Budget(12, estimate_tokens=200), given.geometry.scale)
            for index in (state.index, fresh)
        )
        assert torch.equal(found.retrieved.start_NK, right.retrieved.start_NK)
        assert found.distances == right.distances
        for summaries in (found.estimated, right.estimated):
            assert (summaries is None) != name.startswith("hybrid")
        if found.estimated is not None and right.estimated is not None:
            assert torch.equal(found.estimated.keys_GCD, right.estimated.keys_GCD)
            assert torch.equal(found.estimated.bias_GC, right.estimated.bias_GC)


def segment(given: Layer, first: int, stop: int, queries: torch.Tensor | None = None) -> Segment:
    return Segment(given.k_GTD[:, first:stop], given.v_GTD[:, first:stop], first, queries)


def slots(state: RetrievalState) -> torch.Tensor:
    """[G, T]: which token each slot holds."""
    columns = []
    for part in state.store.parts:
        place_T = torch.arange(part.first, part.stop)
        place_GT = place_T.expand(part.keys_GTD.shape[0], -1)
        columns.append(place_GT if part.positions_GT is None else part.positions_GT)
    return torch.cat(columns, dim=1)


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
        rows = 1 if len(runs.count_N) == 6 else 3
        assert state.work().exact_tokens <= 4 + 16 + 40 + 20 * rows
        assert state.work().distances > 0
        start, stop = 4, state.selection.steady[-1][0]
        where_GT = slots(state)
        right_HK = given.scores(position, position + 1)[:, start:stop].topk(20).indices + start
        for head, right in enumerate(right_HK.tolist()):
            n = head // rows
            row = runs.start_NK[n, : runs.count_N[n]].tolist()
            assert all(start <= slot < stop for slot in row)
            token = where_GT[head // 3, row].tolist()
            kept.append(len(set(token) & set(right)) / 20)
    least = {
        "faiss_flat": 1.0, "faiss_ivf": 0.5, "loki": 0.5, "loki as published": 0.45,
        "infinigen": 0.35,
    }  # fmt: skip
    assert sum(kept) / len(kept) >= least.get(name, 0.95)


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


def error(found: torch.Tensor, right: torch.Tensor) -> float:
    return float(((found - right).norm(dim=-1) / right.norm(dim=-1)).mean())


def test_clusters_stand_for_what_is_not_read() -> None:
    given = layer(800, size=16, heads=3, seed=4)
    options = {**SMALL, "top_tokens": 10, "tokens_per_cluster": 8}
    errors: dict[str, list[float]] = {"none": [], "some": [], "all": []}
    for name, share in (("none", 0.0), ("some", 0.5), ("all", 1.0)):
        state = Hybrid(**options, estimation_budget=share).layer(given.geometry)
        given.prefill(state, 0, 700)
        state.seal()
        for position in range(700, 790):
            found = given.step(state, position)
            errors[name].append(error(found.out, given.oracle(position).out))
        work = state.work()
        if name == "all":  # every token counts once
            assert work.exact_tokens + work.estimated_tokens == pytest.approx(790)
        elif name == "some":
            assert work.exact_tokens < work.exact_tokens + work.estimated_tokens < 790
    mean = {name: sum(each) / len(each) for name, each in errors.items()}
    assert mean["all"] < 0.8 * mean["none"]
    assert mean["all"] < mean["some"] < mean["none"]


def test_equal_keys_are_estimated_exactly() -> None:
    given = layer(500, size=16)
    given.k_GTD[:] = given.k_GTD[:, :1]
    given.v_GTD[:] = given.v_GTD[:, :1]
    state = Hybrid(**SMALL, top_tokens=10).layer(given.geometry)
    given.prefill(state, 0, 450)
    state.seal()
    for position in range(450, 500):
        assert_close(given.step(state, position), given.oracle(position))


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


@pytest.mark.parametrize("kind", [RetrievalAttention, Loki])
def test_keys_are_read_where_they_are_stored(kind: type[VectorRetrieval]) -> None:
    """Not in copies that go on to live beside them."""
    given = layer(900)
    method = kind(sink_tokens=2, local_tokens=4, update_tokens=40, top_tokens=5)
    state = method.layer(given.geometry)
    given.prefill(state, 0, 300)
    state.seal()
    for position in range(300, 900):
        given.step(state, position)
    index = state.index
    assert isinstance(index, AttentionGraphIndex | KeyCodesIndex)
    stored = {part.keys_GTD.untyped_storage().data_ptr() for part in state.store.parts}
    assert {keys.untyped_storage().data_ptr() for keys in index._keys_GTDs} <= stored
    assert sum(keys.shape[1] for keys in index._keys_GTDs) == index.tokens
    assert len(index._keys_GTDs) <= len(state.store.parts)


def test_settings_reach_the_codes() -> None:
    given = layer(900, size=64, heads=2)
    sizes = {}
    for name, method in (
        ("loki", Loki(**SMALL)), ("loki, whole", Loki(**SMALL, rank=1.0)),
        ("hybrid", Hybrid(**SMALL)), ("hybrid, half", Hybrid(**SMALL, rank=0.5)),
    ):  # fmt: skip
        state = method.layer(given.geometry)
        given.prefill(state, 0, 600)
        state.seal()
        sizes[name] = state.memory()["index_bytes"]
        assert state.index.learns is state.remembers is False
    assert sizes["loki, whole"] - sizes["loki"] >= 580 * 2 * 32
    assert sizes["hybrid"] - sizes["hybrid, half"] >= 580 * 2 * 32
    assert Loki().query_sample == (512, 2048)
    assert Loki(metric="keys").query_sample == (0, 0)


def test_a_finder_that_reads_keys_is_refused() -> None:
    with pytest.raises(ValueError, match=r"candidates is 1\.25; it should be 1"):
        HybridIndex(KeyCodesIndex(CodeOptions(candidates=1.25)), WaveIndex(WaveOptions()))
