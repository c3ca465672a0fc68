"""The decode step on fixed buffers: what it says, and that a CUDA graph could be made of it."""

from __future__ import annotations

import gc
import time
import weakref
from dataclasses import asdict
from importlib.util import find_spec
from pkgutil import resolve_name as resolve
from typing import TYPE_CHECKING, Any

import pytest
import torch
from tests.models.test_exactness import prompts
from torch.utils._python_dispatch import TorchDispatchMode

from longspan.methods.full import Full
from longspan.methods.h2o import H2O
from longspan.methods.loki import Loki
from longspan.methods.magicpig import MagicPIG
from longspan.methods.pqcache import PQCache
from longspan.methods.quest import Quest
from longspan.methods.retroinfer import RetroInfer
from longspan.methods.shadowkv import ShadowKV
from longspan.methods.snapkv import SnapKV
from longspan.methods.streaming_llm import StreamingLLM
from longspan.placement.pool import Pool

if TYPE_CHECKING:
    from tests.models.dense import Load

    from longspan.methods.base import Method
    from longspan.models.session import StoreSession


LENGTHS = (180, 75, 3)
BUFFERED = "retroinfer, wave_buffer"
BUFFERED_TOKENS = "pqcache, wave_buffer"
BY_CODES = ("pqcache", "pqcache, a set a query head", BUFFERED_TOKENS)
METHODS: dict[str, Method] = {
    "full": Full(),
    "retroinfer": RetroInfer(
        update_tokens=32, local_tokens=16, segment_tokens=64, tokens_per_cluster=4,
        retrieval_budget=0.2, estimation_budget=0.4, placement="gpu",
    ),
    "retroinfer, gaussian, sized": RetroInfer(
        update_tokens=32, local_tokens=16, estimation="gaussian", vote="sized", summaries="float32",
        retrieval_budget=0.1, tokens_per_cluster=8,
    ),
    "retroinfer, by mass": RetroInfer(
        update_tokens=32, local_tokens=16, segment_tokens=64, tokens_per_cluster=4, vote="mass",
        retrieval_budget=0.1, estimation_budget=0.3, placement="gpu", outlier_budget=0.5,
        tolerance=0.0,
    ),
    BUFFERED: RetroInfer(
        update_tokens=32, local_tokens=16, segment_tokens=64, tokens_per_cluster=4,
        retrieval_budget=0.2, estimation_budget=0.4, placement="wave_buffer", cache_budget=0.5,
    ),
    "retroinfer, no estimation": RetroInfer(
        update_tokens=40, local_tokens=8, estimation="none", vote="max", retrieval_budget=0.1,
    ),
    "quest": Quest(page_tokens=4, update_tokens=16, dense_layers=(0,), retrieval_budget=0.3),
    "quest, a set a KV head, wave_buffer": Quest(
        page_tokens=8, update_tokens=16, dense_layers=(), retrieval_budget=0.2, share="kv_head",
        placement="wave_buffer", cache_budget=0.5, sink_tokens=3, local_tokens=10,
    ),
    "shadowkv": ShadowKV(update_tokens=30, outlier_budget=0.1, retrieval_budget=0.2),
    "loki": Loki(update_tokens=32, local_tokens=16, retrieval_budget=0.2, candidates=1.5),
    "loki, as in the paper": Loki(
        update_tokens=7, local_tokens=9, retrieval_budget=0.3, candidates=1, metric="keys",
        rank=0.25, dense_layers=(1,),
    ),
    "loki, a count": Loki(
        update_tokens=40, local_tokens=8, sink_tokens=0, top_tokens=30, placement="gpu",
    ),
    "magicpig": MagicPIG(
        sink_tokens=3, local_tokens=8, bits=3, tables=12, dense_layers=(), placement="gpu"
    ),
    "magicpig, no sinks": MagicPIG(sink_tokens=0, local_tokens=1, bits=2, tables=6),
    "magicpig, nothing sampled": MagicPIG(local_tokens=30, bits=16, tables=2, dense_layers=(1,)),
    # a code a coordinate: tokens whose codes are equal weigh the same, and either may be read
    "pqcache": PQCache(
        update_tokens=24, sink_tokens=5, local_tokens=10, parts=16, bits=5, retrieval_budget=0.2,
    ),
    "pqcache, a set a query head": PQCache(
        update_tokens=40, sink_tokens=3, local_tokens=8, parts=16, bits=5, top_tokens=20,
        share="query_head", dense_layers=(1,), placement="gpu",
    ),
    BUFFERED_TOKENS: PQCache(
        update_tokens=30, sink_tokens=2, local_tokens=9, parts=16, bits=5, retrieval_budget=0.3,
        placement="wave_buffer", cache_budget=0.5,
    ),
    "snapkv": SnapKV(budget=0.3, window_tokens=8),
    "streaming_llm": StreamingLLM(budget=0.3, sink_tokens=2),
    "streaming_llm, window": StreamingLLM(window_tokens=40),
}  # fmt: skip
STEPS = 80
WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "is_nonzero", "equal")


class Watch(TorchDispatchMode):
    """Notes operations with the shapes they take and give."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Any] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.name()
        assert not any(word in name for word in WAITS), f"{name} waits for the device"
        given = [tuple(x.shape) for x in args if isinstance(x, torch.Tensor)]
        out = func(*args, **(kwargs or {}))
        self.seen.append((name, given, tuple(out.shape) if isinstance(out, torch.Tensor) else ()))
        return out


def sessions(
    load: Load,
    method: Method,
    lengths: tuple[int, ...] = LENGTHS,
    layers: int = 3,
    **options: Any,
) -> tuple[StoreSession, StoreSession]:
    """The same rows, decoded by their states and by the step."""
    both = []
    for graphs in ("off", "eager"):
        model = load("llama", graphs=graphs, layers=layers)
        with torch.no_grad():  # it is zero there, so that to such a query all pages are alike
            model._decoder.module.get_input_embeddings().weight[0, ::2] = 0.7
        session = model.session(method, len(lengths), **options)
        session.prefill(prompts(lengths))
        both.append(session)
    return both[0], both[1]


def greedy(session: StoreSession, steps: int) -> list[torch.Tensor]:
    logits_BV = session.decode([5] * len(session.lengths))
    said = [logits_BV]
    for _ in range(steps - 1):
        logits_BV = session.decode(logits_BV.argmax(-1).tolist())
        said.append(logits_BV)
    return said


@pytest.mark.parametrize("name", METHODS)
def test_it_says_what_the_states_say(load: Load, name: str) -> None:
    """Rows of different lengths, of which some have an index and some get one on the way."""
    right, found = sessions(load, METHODS[name])
    for a_BV, b_BV in zip(greedy(right, STEPS), greedy(found, STEPS), strict=True):
        assert torch.equal(a_BV.argmax(-1), b_BV.argmax(-1))
        torch.testing.assert_close(a_BV, b_BV, atol=2e-4, rtol=1e-4)
    assert found._rows[0].static is not None
    for rights, founds in zip(right.states, found.states, strict=True):
        for a, b in zip(rights, founds, strict=True):
            assert len(a.store) == len(b.store)
            a_work, b_work = asdict(a.work()), asdict(b.work())
            # a state's step in one call does not read the estimated centroids again
            assert a_work.pop("index_bytes") <= b_work.pop("index_bytes")
            # what was generated lies near, where it needs neither cache nor bus
            asked, beside = (
                each.pop("cached_tokens") + each.pop("missed_tokens") for each in (a_work, b_work)
            )
            assert 0 <= beside <= asked
            assert bool(a_work.pop("bus_bytes")) >= bool(b_work.pop("bus_bytes"))
            assert a_work == pytest.approx(b_work)
            for x, y in zip(joined(a), joined(b), strict=True):
                torch.testing.assert_close(x, y, atol=1e-4, rtol=1e-4)


def joined(state: Any) -> list[torch.Tensor]:
    parts = state.store.parts
    names = ("keys_GTD", "values_GTD", "places_GT")
    return [torch.cat([getattr(part, name) for part in parts], 1) for name in names]


def watched(session: StoreSession, steps: int, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The operations of each further step, none of which brings a number to the host."""
    if session._rows[0].static is None:
        session.decode([5] * len(session.lengths))
    step = session._rows[0].static
    assert step is not None
    seen, inner = [], step.step

    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("a step waits for the device")

    def outer() -> torch.Tensor:
        with Watch() as watch, monkeypatch.context() as patch:
            for name in ("item", "tolist", "numpy", "cpu", "__bool__", "__int__", "__float__"):
                patch.setattr(torch.Tensor, name, refuse)
            logits_BV = inner()
        seen.append(watch.seen)
        return logits_BV

    step.step = outer  # type: ignore[method-assign]
    greedy(session, steps)
    return seen


@pytest.mark.parametrize("name", METHODS)
def test_steps_wait_for_nothing_and_are_the_same_operations(
    load: Load, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What capturing a graph, and replaying it in later steps, needs. An update lies between."""
    _, session = sessions(load, METHODS[name])
    seen = watched(session, STEPS, monkeypatch)
    assert len(seen) == STEPS
    assert len(seen[0]) > 50
    assert all(each == seen[0] for each in seen)


@pytest.mark.skipif(not find_spec("triton"), reason="Triton is not installed")
@pytest.mark.skipif(torch.cuda.is_available(), reason="it has the real thing")
@pytest.mark.parametrize("name", ["retroinfer", BUFFERED, "magicpig", "loki", *BY_CODES])
def test_the_kernels_of_a_gpu_do_so_too(
    load: Load, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their host code, which a capture runs, with kernels in Triton's interpreter."""
    right, found = sessions(load, METHODS[name], (70, 3), layers=1, max_tokens=80)
    # no token 0: its embedding is zero, so that all clusters score the same
    tokens = [5, 6]
    right_BV = right.decode(tokens)
    reached = "wave_search", "wave_decode.mass", "merge", "step_slots", "hash_tables"
    attending = "sparse_decode", "cached_decode", "sampled_decode"
    for operation in (*attending, *reached, "key_scan.steps", "product_codes"):
        served = f"longspan_kernels.{operation}.triton_serves"
        monkeypatch.setattr(served, lambda *_, **__: True)
    torch.testing.assert_close(found.decode(tokens), right_BV, atol=2e-4, rtol=1e-4)
    assert found._rows[0].states[0].index.tokens  # type: ignore[attr-defined]
    seen = watched(found, 2, monkeypatch)
    assert seen[0] == seen[1]
    if name in (BUFFERED, BUFFERED_TOKENS):
        assert found.states[0][0].placement.traffic.hit_entries > 0  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["retroinfer", BUFFERED, "magicpig"])
def test_a_step_done_again_changes_nothing(load: Load, name: str) -> None:
    """Warming up before the capture does that."""
    _, session = sessions(load, METHODS[name])
    session.decode([5] * len(LENGTHS))
    step = session._rows[0].static
    assert step is not None
    with torch.inference_mode():
        first_BV, again_BV = step.step().clone(), step.step()
    assert torch.equal(first_BV, again_BV)


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


@pytest.mark.parametrize("name", ["retroinfer", BUFFERED, "magicpig"])
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


def interrupt(*_: Any) -> Any:
    raise KeyboardInterrupt


@pytest.mark.parametrize("name", ["retroinfer", BUFFERED])
def test_rows_that_rest_take_nothing_in(load: Load, name: str) -> None:
    """What a further turn finds in a row's index is not a matter of the rows beside it."""
    said, indexed = [], []
    for session in sessions(load, METHODS[name], (5, 75)):
        greedy(session, 32)  # with its next token, layer 0 of the second row takes in 32
        session.select([0]).decode([5])
        session.prefill([[], [6]])  # whose seal takes in 33
        said.append(session.decode([5, 5]))
        indexed.append([states[1].indexed for states in session.states])  # type: ignore[attr-defined]
    assert indexed[0] == indexed[1]
    torch.testing.assert_close(*said, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("name", METHODS)
def test_rows_that_rest_say_what_their_last_step_did(load: Load, name: str) -> None:
    """As their states do."""
    right, found = sessions(load, METHODS[name])
    for session in (right, found):
        greedy(session, 3)
    for _ in range(2):
        for session in (right, found):
            greedy(session.select([0]), 25)
        for rights, founds in zip(right.states[1:], found.states[1:], strict=True):
            for a, b in zip(rights, founds, strict=True):
                assert a.selection.steady == b.selection.steady
                assert a.work().exact_tokens == pytest.approx(b.work().exact_tokens)
                assert a.work().estimated_tokens == pytest.approx(b.work().estimated_tokens)
                x, y = a.selection.retrieved, b.selection.retrieved
                assert (x is None) == (y is None)
                assert x is None or y is None or x.count_N.tolist() == y.count_N.tolist()


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


@pytest.mark.parametrize("budgets", [(0.6, 0.4), (0.6, 0.2), (0.05, 0.95)])
def test_what_is_retrieved_takes_nothing_from_what_is_estimated(
    load: Load, budgets: tuple[float, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Few clusters, all or most of which are read."""
    monkeypatch.setattr("longspan.models.static.AHEAD_TOKENS", 10)
    method = RetroInfer(
        update_tokens=32, local_tokens=8, tokens_per_cluster=16, placement="gpu",
        retrieval_budget=budgets[0], estimation_budget=budgets[1],
    )  # fmt: skip
    right, found = sessions(load, method, (110, 90))
    for a_BV, b_BV in zip(greedy(right, 40), greedy(found, 40), strict=True):
        torch.testing.assert_close(a_BV, b_BV, atol=2e-4, rtol=1e-4)


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


def test_what_cannot_be_is_said(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: False)
        with pytest.raises(ValueError, match=r"model\.graphs = 'on': there is no CUDA device"):
            load("llama", graphs="on")
    for method, family, reason in (
        (H2O(), "llama", "'h2o' has no decode step of fixed shapes"),
        (Loki(placement="wave_buffer"), "llama", "'wave_buffer' reads by KV head"),
        (Quest(placement="wave_buffer"), "llama", "method.share = 'query_head'"),
        (ShadowKV(placement="wave_buffer", dense_layers=(1,)), "llama", r"dense_layers = \[1\]"),
        (PQCache(placement="wave_buffer", dense_layers=(0,)), "llama", r"dense_layers = \[0\]"),
        (PQCache(placement="wave_buffer", share="query_head"), "llama", "which reads by KV head"),
        (RetroInfer(tail="segment_mean"), "llama", "method.tail = 'segment_mean'"),
        (RetroInfer(clusters_per_group=8), "llama", "method.clusters_per_group = 8"),
        (Full(), "gemma2", "sliding window"),
    ):
        session = load(family, graphs="eager").session(method)
        session.prefill([[5, 6]])
        with pytest.raises(ValueError, match=reason):
            session.decode([7])
    monkeypatch.setattr("longspan.models.room.available", lambda device: 1 << 40)
    session = load("llama", graphs="eager").session(Full())
    session.prefill([[5, 6]])
    monkeypatch.setattr("longspan.models.room.available", lambda device: 1000)
    with pytest.raises(ValueError, match=r"model\.graphs: buffers of 8194 tokens"):
        session.decode([7])
