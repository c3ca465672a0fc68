"""The wave buffer answers what plain memory answers, whatever its cache holds."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
import torch
from tests.methods.cases import Layer, assert_close, layer

from longspan.methods.hybrid import Hybrid
from longspan.methods.infinigen import InfiniGen
from longspan.methods.infllm import InfLLM
from longspan.methods.loki import Loki
from longspan.methods.retrieval_attention import RetrievalAttention
from longspan.methods.retroinfer import RetroInfer
from longspan.placement.base import Place, Traffic, place
from longspan.placement.wave_buffer import WaveBuffer
from longspan.types import LayerGeometry, Runs
from longspan_kernels.merge import merge

if TYPE_CHECKING:
    from longspan.methods.base import LayerState, Method

SMALL: dict[str, Any] = {"sink_tokens": 3, "local_tokens": 9, "update_tokens": 60}
METHODS: dict[str, Any] = {
    "retroinfer": RetroInfer(**SMALL, retrieval_budget=0.1, min_clusters=1, tolerance=0.0),
    "tolerance": RetroInfer(**SMALL, tolerance=0.01, tail="segment_mean"),
    "retrieval_attention": RetrievalAttention(**SMALL, top_tokens=20, beam=40),
    "hybrid": Hybrid(**SMALL, top_tokens=20),
    "hybrid, graph": Hybrid(**SMALL, top_tokens=20, beam=40, tokens_by="graph"),
    "infllm": InfLLM(**SMALL, page_tokens=12, top_tokens=24),
    "loki": Loki(**SMALL, top_tokens=20),
    "infinigen": InfiniGen(**SMALL, top_tokens=20, dense_layers=()),
}


def read(method: Method, given: Layer, prompt: int) -> LayerState:
    state = method.layer(given.geometry)
    given.prefill(state, 0, prompt // 2, prompt)
    state.seal()
    return state


def buffer_of(state: LayerState) -> WaveBuffer:
    found = state.placement  # type: ignore[attr-defined]
    assert isinstance(found, WaveBuffer)
    return found


@pytest.mark.parametrize("policy", ["lru", "tinylfu", "lfu"])
def test_layers_that_share_a_cache_answer_what_host_memory_answers(policy: str) -> None:
    """Two whose contents differ, so that a block of the other would be noticed; and their forks,
    which share another cache.
    """
    layers = [layer(330, groups=2, heads=2, size=16, seed=seed) for seed in (0, 1)]
    method = METHODS["retroinfer"]
    beside = replace(method, placement="wave_buffer", cache_budget=0.1, cache_policy=policy)
    right = [read(method, given, 200) for given in layers]
    found = [beside.layer(given.geometry) for given in layers]
    found[1].join(found[0])
    for given, state in zip(layers, found, strict=True):
        given.prefill(state, 0, 100, 200)
        state.seal()
    for position in range(200, 330):
        if position == 260:
            found = [state.fork() for state in found]
            found[1].join(found[0])
        for given, a, b in zip(layers, right, found, strict=True):
            assert_close(given.step(b, position), given.step(a, position), 1e-6)
    below, above = map(buffer_of, found)
    assert below.cache is above.cache
    assert (below.layer, above.layer, below.cache.layers) == (0, 1, 2)
    frozen = below.store.frozen + above.store.frozen
    assert below.cache.entries() == pytest.approx(0.1 * 2 * frozen)
    assert all(buffer.traffic.hit_entries > 0 for buffer in (below, above))


def test_layers_of_other_heads_share_no_cache() -> None:
    buffers = []
    for kv_heads, budget in ((2, 0.1), (1, 0.1), (2, 0.2), (2, 0.1)):
        given = layer(20, groups=kv_heads, heads=2, size=16)
        buffers.append(WaveBuffer(given.geometry, Place("wave_buffer", budget)))
    for below, above in pairwise(buffers):
        above.join(below)
    assert len({id(buffer.cache) for buffer in buffers}) == len(buffers)
    buffers[3].join(buffers[0])
    assert buffers[3].cache is buffers[0].cache


@pytest.mark.parametrize(
    ("name", "policy"),
    [(name, "lru") for name in METHODS] + [("retroinfer", "tinylfu"), ("retroinfer", "lfu")],
)
def test_it_answers_what_host_memory_answers(name: str, policy: str) -> None:
    """Over two updates of the index, in which the store's parts are joined."""
    given = layer(330, groups=2, heads=2, size=16)
    method = METHODS[name]
    beside = replace(method, placement="wave_buffer", cache_budget=0.1, cache_policy=policy)
    right, found = read(method, given, 200), read(beside, given, 200)
    for position in range(200, 330):
        a, b = given.step(right, position), given.step(found, position)
        assert_close(b, a, 1e-6)
    traffic = buffer_of(found).traffic
    assert traffic is not None
    assert traffic.hit_entries > 0
    assert traffic.miss_entries > 0
    assert traffic.bus_bytes == traffic.miss_entries * 2 * 16 * 4
    work, plain = found.work(), right.work()
    assert work.exact_tokens == plain.exact_tokens
    rows = found.selection.retrieved.count_N  # type: ignore[union-attr]
    total = (work.cached_tokens + work.missed_tokens) * len(rows)
    assert total == pytest.approx(buffer_of(found).last.hit_entries + work.bus_bytes / (2 * 16 * 4))  # type: ignore[union-attr]
    assert plain.cached_tokens == plain.missed_tokens == plain.bus_bytes == 0


@pytest.mark.parametrize("name", METHODS)
def test_what_the_last_query_asks_for_is_there_before_the_next_step(name: str) -> None:
    """Unless the index learned of it, and would again: then nothing comes."""
    given = layer(330, groups=2, heads=2, size=16)
    method = replace(METHODS[name], placement="wave_buffer", cache_budget=1.0)
    state, right = read(method, given, 300), read(METHODS[name], given, 300)
    learns = name in ("retrieval_attention", "hybrid, graph")
    for position in (299, 300):
        state.prefetch()
        traffic = buffer_of(state).traffic
        assert (traffic.prefetch_bytes == 0) == learns
        assert (buffer_of(state).last, traffic.bus_bytes, traffic.hit_entries) == (None, 0, 0)
        q_HD = given.q_HTD[:, position]
        assert_close(state.decode(q_HD), right.decode(q_HD), 1e-6)
        assert (traffic.bus_bytes == traffic.miss_entries == 0) == (not learns)
        given.step(state, 300), given.step(right, 300)
        state = state.fork()  # whose cache is empty


def test_nothing_comes_before_there_is_an_index_or_a_query() -> None:
    given = layer(330, groups=2, heads=2, size=16)
    state = replace(METHODS["retroinfer"], placement="wave_buffer").layer(given.geometry)
    state.prefetch()
    given.prefill(state, 0, 40)
    state.seal()
    state.prefetch()
    assert buffer_of(state).traffic == Traffic()


@pytest.mark.parametrize("budget", [0.0, 1.0])
def test_no_cache_and_a_cache_of_everything(budget: float) -> None:
    given = layer(420)
    method = replace(METHODS["retroinfer"], placement="wave_buffer", cache_budget=budget)
    state, right = read(method, given, 400), read(METHODS["retroinfer"], given, 400)
    for _ in range(2):
        for position in range(400, 410):
            q_HD = given.q_HTD[:, position]
            assert_close(state.decode(q_HD), right.decode(q_HD), 1e-6)
        traffic, buffer_of(state).traffic = buffer_of(state).traffic, Traffic()
    assert traffic is not None
    # the second time a cache of everything has all of it
    assert (traffic.miss_entries == 0) == (budget == 1.0)
    assert (traffic.hit_entries == 0) == (budget == 0.0)


def test_the_cache_grows_with_the_store_and_is_part_of_its_memory() -> None:
    given = layer(600, groups=2, size=8)
    method = replace(METHODS["retroinfer"], placement="wave_buffer", cache_budget=0.25)
    state = read(method, given, 300)
    given.step(state, 300)
    before = buffer_of(state).nbytes - state.store.nbytes
    assert before == pytest.approx(0.25 * 291 * 2 * 2 * 8 * 4, rel=0.05)
    for position in range(301, 600):
        given.step(state, position)
    after = buffer_of(state).nbytes - state.store.nbytes
    assert 1.6 * before < after <= 0.26 * 600 * 2 * 2 * 8 * 4
    assert state.memory()["kv_bytes"] == state.store.nbytes + after


def test_forks_share_host_memory_and_go_their_own_way() -> None:
    given, other = layer(500), layer(500, seed=1)
    method = replace(METHODS["retroinfer"], placement="wave_buffer", cache_budget=0.2)
    state, right = read(method, given, 400), read(METHODS["retroinfer"], given, 400)
    given.step(state, 400), given.step(right, 400)
    twin = state.fork()
    assert twin.store.parts[0].keys_GTD.data_ptr() == state.store.parts[0].keys_GTD.data_ptr()
    for position in range(401, 480):
        other.step(twin, position)
        assert_close(given.step(state, position), given.step(right, position), 1e-6)


def test_a_buffer_that_is_too_short_grows_and_says_so() -> None:
    geometry = LayerGeometry(0, 4, 2, 8, 0.3, torch.float32, torch.device("cpu"))
    placed = place(Place("wave_buffer", cache_budget=0.1), geometry)
    k, v, q = torch.randn(2, 2000, 8), torch.randn(2, 2000, 8), torch.randn(4, 8)
    placed.store.append(k, v)
    placed.store.freeze(2000)
    placed.store.compact()
    for size, overflows in ((20, 0), (1500, 1), (1500, 0)):
        sizes = torch.tensor([[size, 3], [7, 5]], dtype=torch.int32)
        starts = torch.tensor([[9, 1900], [50, 0]], dtype=torch.int32)
        runs = Runs(starts, sizes, torch.tensor([2, 2], dtype=torch.int32))
        found = merge(placed.attend_runs(q, runs))
        assert placed.last is not None
        assert placed.last.overflows == overflows
        plain = place("cpu", geometry)
        plain.store.append(k, v)
        assert_close(found, merge(plain.attend_runs(q, runs)), 1e-6)


def test_long_stretches_are_attended_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("longspan.placement.wave_buffer.BLOCK", 64)
    geometry = LayerGeometry(0, 4, 2, 8, 0.3, torch.float32, torch.device("cpu"))
    placed, plain = place("wave_buffer", geometry), place("cpu", geometry)
    k, q = torch.randn(2, 300, 8), torch.randn(4, 8)
    for one in (placed, plain):
        one.store.append(k, k)
    placed.store.freeze(200)
    ranges = ((0, 5), (7, 300))
    assert_close(merge(placed.attend_ranges(q, ranges)), merge(plain.attend_ranges(q, ranges)))
