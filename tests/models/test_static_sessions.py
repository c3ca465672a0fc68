"""Decode steps on fixed buffers in the life of a session: turns, updates, interruptions, memory."""

from __future__ import annotations

import gc
import time
import weakref
from dataclasses import asdict
from pkgutil import resolve_name as resolve
from typing import TYPE_CHECKING, Any

import pytest
import torch
from tests.models.test_exactness import prompts

from longspan.methods.h2o import H2O, H2OState
from longspan.methods.retroinfer import RetroInfer
from longspan.models.graphs import no_finalizers
from longspan.placement.pool import Pool

if TYPE_CHECKING:
    from tests.models.dense import Load


from tests.models.static_steps import (
    BUFFERED,
    BY_CODES,
    LENGTHS,
    METHODS,
    WEIGHED,
    greedy,
    sessions,
)


@pytest.mark.parametrize(
    "name",
    ["retroinfer", BUFFERED, "quest", "shadowkv", "snapkv", "magicpig", "loki", *BY_CODES[::2]],
)
def test_views_forks_turns_and_tapes(load: Load, name: str) -> None:
    right, found = sessions(load, METHODS[name])
    both = []
    for session in (right, found):
        session.record()
        greedy(session, 20)
        view = session.select([2, 0])
        said = [view.decode([7, 8]), view.decode([9, 10])]
        twin = session.fork(1)
        said += greedy(twin, 40)
        said += greedy(session, 40)
        said.append(session.prefill([[], [20, 21], [22]]))
        said += greedy(session, 5)
        both.append((said, [session.recorded(row) for row in range(3)]))
    for a_BV, b_BV in zip(both[0][0], both[1][0], strict=True):
        torch.testing.assert_close(a_BV, b_BV, atol=2e-4, rtol=1e-4)
    for a, b in zip(both[0][1], both[1][1], strict=True):
        assert len(a) == len(b) > 0


@pytest.mark.parametrize("name", ["retroinfer", BUFFERED, "loki"])
def test_a_full_buffer_is_made_anew(load: Load, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("longspan.models.static.AHEAD_TOKENS", 10)
    right, found = sessions(load, METHODS[name])
    for a_BV, b_BV in zip(greedy(right, 45), greedy(found, 45), strict=True):
        torch.testing.assert_close(a_BV, b_BV, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["full", "retroinfer", BUFFERED])
def test_full_buffers_go_before_others_are_made(
    load: Load, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("longspan.models.static.AHEAD_TOKENS", 10)
    alive: Any = weakref.WeakSet()
    most, made = [], Pool.__init__

    def counted(self: Pool, *given: Any, **named: Any) -> None:
        alive.add(self)
        most.append(len(alive))
        made(self, *given, **named)

    monkeypatch.setattr(Pool, "__init__", counted)
    session = load("llama", graphs="eager").session(METHODS[name], len(LENGTHS))
    session.prefill(prompts(LENGTHS))
    greedy(session, 10)
    first = weakref.ref(session._rows[0].static)
    session.decode([5] * len(LENGTHS))
    assert first() is None
    layers = len(session._rows[0].states)
    assert most == [*range(1, layers + 1)] * 2
    # nor does what the states say of the step before hold them
    assert all(state._reading is None for row in session._rows for state in row.states)


@pytest.mark.parametrize("name", BY_CODES)
def test_a_longer_turn_has_a_codebook_of_its_own(load: Load, name: str) -> None:
    """Rows then have one, two and three of them, and buffers are made for all."""
    right, found = sessions(load, METHODS[name], (60, 75, 60), layers=1)
    for a_BV, b_BV in zip(greedy(right, 30), greedy(found, 30), strict=True):
        torch.testing.assert_close(a_BV, b_BV, atol=2e-4, rtol=1e-4)
    for seed, lengths in enumerate(((1, 160, 160), (1, 1, 400))):
        for session in (right, found):
            session.prefill(prompts(lengths, seed=seed + 5))
        for a_BV, b_BV in zip(greedy(right, 45), greedy(found, 45), strict=True):
            torch.testing.assert_close(a_BV, b_BV, atol=2e-4, rtol=1e-4)
    for session in (right, found):
        states: Any = session.states[0]
        assert [len(state.index.stretches) for state in states] == [1, 2, 3]
    for rights, founds in zip(right.states, found.states, strict=True):
        for a, b in zip(rights, founds, strict=True):
            a_work, b_work = a.work(), b.work()
            for name in ("exact_tokens", "distances", "index_bytes", "kv_bytes"):
                assert getattr(a_work, name) == getattr(b_work, name)
            assert a.memory()["index_bytes"] == b.memory()["index_bytes"]
            assert slots(a.selection.retrieved) == slots(b.selection.retrieved)


def slots(runs: Any) -> list[set[int]]:
    """Of runs of a token each, a set a row."""
    lists = zip(runs.start_NK.tolist(), runs.count_N.tolist(), strict=True)
    return [set(start[:count]) for start, count in lists]


def test_stretches_that_round_up_find_room(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cluster for every 4 tokens, where clusters of 16 are asked for."""
    monkeypatch.setattr("longspan.models.static.AHEAD_TOKENS", 120)
    right, found = sessions(load, RetroInfer(update_tokens=4, local_tokens=8, sink_tokens=0))
    for a_BV, b_BV in zip(greedy(right, 60), greedy(found, 60), strict=True):
        torch.testing.assert_close(a_BV, b_BV, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["retroinfer", BUFFERED])
def test_indexes_built_while_layers_read_are_done_before_it(load: Load, name: str) -> None:
    """Before buffers are made of them, and again where a second turn leaves the buffers."""
    method, said = METHODS[name], []
    for options in ({}, {"graphs": "eager", "overlap_index": True}):
        session = load("llama", prefill_chunk_tokens=50, **options).session(method, len(LENGTHS))
        tokens = [session.prefill(prompts(LENGTHS)).argmax(-1)]
        tokens += [x.argmax(-1) for x in greedy(session, 5)]
        tokens.append(session.prefill(prompts((70, 90, 110), seed=2)).argmax(-1))
        tokens += [x.argmax(-1) for x in greedy(session, 40)]
        assert (session._rows[0].static is not None) == bool(options)
        said.append(torch.stack(tokens))
    assert torch.equal(*said)


@pytest.mark.parametrize("name", ["retroinfer", BUFFERED, "magicpig", *WEIGHED])
def test_a_step_that_is_interrupted_is_done_again(
    load: Load, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once, wherever it was: before a layer's update, and between two layers."""
    right, found = sessions(load, METHODS[name])
    greedy(right, 2)
    greedy(found, 2)
    step = found._rows[0].static
    assert step is not None
    for method, layer in (("update", 1), ("step", 1), ("update", 2)):
        with monkeypatch.context() as patch:
            patch.setattr(step.layers[layer], method, interrupt)
            with pytest.raises(KeyboardInterrupt):
                found.decode([5] * len(LENGTHS))
    start = time.perf_counter()
    for a_BV, b_BV in zip(greedy(right, 40), greedy(found, 40), strict=True):
        torch.testing.assert_close(a_BV, b_BV, atol=2e-4, rtol=1e-4)
    assert found.states[0]
    assert time.perf_counter() - start < 50, "a step that was given up was waited for"


@pytest.mark.parametrize("name", WEIGHED)
def test_tokens_have_received_as_much(load: Load, name: str) -> None:
    """Also of the steps of a row beside which others rest, and replayed from a tape."""
    right, found = sessions(load, METHODS[name])
    found.record()
    for session in (right, found):
        greedy(session, 30)
        greedy(session.select([1]), 5)
    again, _ = sessions(load, METHODS[name])
    for row, tokens in enumerate((30, 35, 30)):
        again.replay(row, tokens, found.recorded(row))
    for session in (right, found, again):
        greedy(session, 3)
    for layers in zip(right.states, found.states, again.states, strict=True):
        for row in zip(*layers, strict=True):
            sums = [received(state) for state in row]
            assert sums[0] is None or sums[0].shape[1] == len(row[0].store)  # type: ignore[attr-defined]
            for other in sums[1:]:
                torch.testing.assert_close(other, sums[0], atol=1e-5, rtol=1e-4)


def test_room_for_more_than_buffers_hold_is_never_used_up(load: Load) -> None:
    right, found = sessions(load, H2O(kept_tokens=1000), layers=1)
    for a_BV, b_BV in zip(greedy(right, 3), greedy(found, 3), strict=True):
        torch.testing.assert_close(a_BV, b_BV, atol=2e-4, rtol=1e-4)
    assert found.states[0][0].work() == right.states[0][0].work()


def received(state: Any) -> torch.Tensor | None:
    sums = getattr(state, "received" if isinstance(state, H2OState) else "weighed", None)
    return None if sums is None else sums.of(0, len(state.store))


def interrupt(*_: Any) -> Any:
    raise KeyboardInterrupt


@pytest.mark.parametrize("cache_budget", [0.0, 0.01, 0.5])
def test_what_a_cache_takes_is_the_memory_of_its_rows(load: Load, cache_budget: float) -> None:
    method = RetroInfer(
        update_tokens=32, local_tokens=16, placement="wave_buffer", cache_budget=cache_budget
    )
    _, session = sessions(load, method)
    greedy(session, 2)
    step = session._rows[0].static
    assert step is not None
    pools: list[Any] = [each.pool for each in step.layers]  # type: ignore[attr-defined]
    owned = sum(placement.pool_bytes for pool in pools for placement in pool.placements)
    held = pools[0].cached.pool.nbytes + sum(pool.cached.row_of_NT.nbytes for pool in pools)
    assert len(pools) > 1
    assert all(pool.cached.pool is pools[0].cached.pool for pool in pools)
    assert abs(owned - held) <= len(pools) * len(pools[0].placements)


def test_layers_share_a_cache_and_sequences_do_not(load: Load) -> None:
    _, session = sessions(load, METHODS[BUFFERED])
    greedy(session, 2)
    twin = session.fork(1)
    rows = [row.states for each in (session, twin) for row in each._rows]
    caches = [[state.placement.cache for state in states] for states in rows]  # type: ignore[attr-defined]
    assert all(cache.layers == len(mine) > 1 for mine in caches for cache in mine)
    assert [len(set(map(id, mine))) for mine in caches] == [1] * len(rows)
    assert len({id(mine[0]) for mine in caches}) == len(rows)


@pytest.mark.parametrize("which", [0, 1])
def test_the_first_step_finds_what_the_prompt_asked_for_last(load: Load, which: int) -> None:
    """By states and on fixed buffers, and again in forks, whose caches begin empty."""
    session = sessions(load, METHODS[BUFFERED])[which]
    for each in (session, session.fork(1)):
        greedy(each, 1)
        rows = zip(*each.states, strict=True)
        hits = [sum(state.placement.traffic.hit_entries for state in row) for row in rows]  # type: ignore[attr-defined]
        assert hits[0] > 0
        assert hits[1] > 0
        assert hits[2] == 0, "nothing of it is indexed"
    session.prefill(prompts((40, 40, 40)))
    assert not any(row.prefetched for row in session._rows)


def test_rows_that_rest_leave_no_trace_in_the_traffic(load: Load) -> None:
    _, session = sessions(load, METHODS[BUFFERED])
    greedy(session, 3)
    traffic = [state.placement.traffic for state in session.states[0]]  # type: ignore[attr-defined]
    before = asdict(traffic[1])
    asked = asdict(traffic[0])
    view = session.select([0])
    greedy(view, 10)
    assert view.states
    assert asdict(traffic[1]) == before
    assert asdict(traffic[0]) != asked


@pytest.mark.parametrize("name", ["retroinfer", BUFFERED])
def test_where_memory_ends_half_way_the_states_go_on(
    load: Load, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    right, found = sessions(load, METHODS[name])
    module = "cached_pool.CachedStore.of" if name == BUFFERED else "pool.Pool.__init__"
    path = f"longspan.placement.{module}"
    made, calls = resolve(path), []

    def full(*given: Any, **named: Any) -> Any:
        calls.append(given)
        if len(calls) == 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return made(*given, **named)

    monkeypatch.setattr(path, full)
    with pytest.raises(torch.OutOfMemoryError):
        found.decode([5] * len(LENGTHS))
    found._by_states = True
    for a_BV, b_BV in zip(greedy(right, 45), greedy(found, 45), strict=True):
        torch.testing.assert_close(a_BV, b_BV, atol=2e-4, rtol=1e-4)


def test_codes_and_the_keys_that_an_index_reads_lie_in_the_buffers(load: Load) -> None:
    """Not in memory of their own beside them, also after updates, and in buffers made anew."""
    _, session = sessions(load, METHODS["loki"])
    for _ in range(2):
        greedy(session, 40)
        step = session._rows[0].static
        assert step is not None
        layers: list[Any] = step.layers
        for layer in layers:
            here = {layer.pool.keys_BGCD.untyped_storage().data_ptr()}
            codes = {layer.searched.code_BGTW.untyped_storage().data_ptr()}
            indexes = [row.index for row in layer.rows if row.index.tokens]
            assert indexes
            for index in indexes:
                lying = {part.code_GTW.untyped_storage().data_ptr() for part in index.coded}
                assert lying == codes
                assert {x.untyped_storage().data_ptr() for x in index._keys_GTDs} == here
        session.prefill([[5, 6], [7], [8]])


@pytest.mark.parametrize("graphs", ["off", "eager"])
@pytest.mark.parametrize("name", ["full", "retroinfer", BUFFERED, "loki"])
def test_keys_and_values_go_with_the_session(load: Load, name: str, graphs: str) -> None:
    """Not when Python looks for cycles next, by which time a GPU may be full."""
    gc.collect()
    gc.disable()
    try:
        session = load("llama", graphs=graphs).session(METHODS[name], len(LENGTHS))
        session.prefill(prompts(LENGTHS))
        greedy(session, 3)
        view = session.select([1])
        held: list[Any] = [weakref.ref(state.store) for state in session.states[0]]
        if (step := session._rows[0].static) is not None:
            held.append(weakref.ref(step.layers[0]))
            del step
        del session
        greedy(view, 2)  # of a row that is left
        del view
        assert [each() for each in held] == [None] * len(held)
    finally:
        gc.enable()


@pytest.mark.parametrize("timed", [False, True])
def test_garbage_that_a_timer_keeps_is_kept_behind_a_capture(timed: bool) -> None:
    try:
        (gc.disable if timed else gc.enable)()
        with no_finalizers():
            assert not gc.isenabled()
        assert gc.isenabled() == (not timed)
    finally:
        gc.enable()
