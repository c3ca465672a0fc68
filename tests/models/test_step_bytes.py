"""What steps of fixed shape are said to hold is what their buffers hold."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import torch

from longspan.methods.full import Full
from longspan.methods.h2o import H2O
from longspan.methods.hybrid import Hybrid
from longspan.methods.infllm import InfLLM
from longspan.methods.loki import Loki
from longspan.methods.magicpig import MagicPIG
from longspan.methods.pqcache import PQCache
from longspan.methods.quest import Quest
from longspan.methods.retroinfer import RetroInfer
from longspan.methods.shadowkv import ShadowKV
from longspan.methods.snapkv import SnapKV
from longspan.methods.streaming_llm import StreamingLLM
from longspan.models import room
from longspan.types import LayerGeometry, StepBytes

if TYPE_CHECKING:
    from longspan.methods.base import Method

GEOMETRY = LayerGeometry(0, 4, 2, 64, 0.125, torch.float32, torch.device("cpu"))
HELD, MORE = (1200, 700), 300
SMALL: dict[str, Any] = {"update_tokens": 128, "local_tokens": 16, "placement": "gpu"}
BUFFER: dict[str, Any] = {**SMALL, "placement": "wave_buffer", "cache_budget": 0.3}
WAVE: dict[str, Any] = {"segment_tokens": 256, "tokens_per_cluster": 4}
METHODS: dict[str, Method] = {
    "full": Full(placement="gpu"),
    "streaming_llm": StreamingLLM(placement="gpu"),
    "snapkv": SnapKV(budget=0.3, placement="gpu"),
    "h2o": H2O(budget=0.3, placement="gpu"),
    "magicpig": MagicPIG(bits=3, tables=6, dense_layers=(), placement="gpu"),
    "loki": Loki(retrieval_budget=0.2, **SMALL),
    "pqcache": PQCache(retrieval_budget=0.2, **SMALL),
    "pqcache, a set a query head": PQCache(share="query_head", retrieval_budget=0.2, **SMALL),
    "quest": Quest(dense_layers=(), retrieval_budget=0.2, page_tokens=4, **SMALL),
    "shadowkv": ShadowKV(retrieval_budget=0.2, page_tokens=4, **SMALL),
    "infllm": InfLLM(retrieval_budget=0.2, page_tokens=4, representatives=2, **SMALL),
    "retroinfer": RetroInfer(**WAVE, **SMALL),
    "retroinfer, by size": RetroInfer(
        vote="sized", estimation="clusters", tolerance=0.0, summaries="float32", **WAVE, **SMALL
    ),
    "hybrid": Hybrid(**WAVE, **SMALL),
    "hybrid, the best": Hybrid(estimation_budget=0.2, **WAVE, **SMALL),
    "retroinfer, wave_buffer": RetroInfer(**WAVE, **BUFFER),
    "pqcache, wave_buffer": PQCache(retrieval_budget=0.2, **BUFFER),
}
HOST = ("steps", "tables", "_homes", "homes", "stores", "placements", "caches")
"""What of a pool lies in host memory, or is the stores'."""
OF_STATES = ("states", "rows", "weighing", "indexes", "first", "geometry", "plan")
TOLERANCE = 0.02


def sealed(method: Method, tokens: int) -> Any:
    """A state over a prompt of noise."""
    state: Any = method.layer(GEOMETRY)
    k_GTD, v_GTD = torch.randn(2, 2, tokens, 64)
    state.adopt(k_GTD, v_GTD, torch.randn(4, tokens, 64))
    state.seal()
    return state


def stepped(method: Method) -> tuple[Any, list[Any], list[int]]:
    """A layer of fixed shape after a step, the states of its rows, and what these may hold."""
    torch.manual_seed(0)
    states = [sealed(method, tokens) for tokens in HELD]
    limits = [tokens + MORE for tokens in HELD]
    static = method.static_layer(states, limits)
    static.prefetch()
    static.update(list(HELD), [0, 1])
    new_BGD, at_B = torch.randn(2, 2, 64), torch.tensor(HELD)
    static.step(torch.randn(2, 4, 64), new_BGD, new_BGD, at_B)
    static.settle([tokens + 1 for tokens in HELD])
    return static, states, limits


def held_bytes(value: Any, seen: dict[int, object]) -> int:
    """Of the tensors that hang on it, each storage once."""
    if isinstance(value, torch.Tensor):
        storage = value.untyped_storage()
        known = storage.data_ptr() in seen
        seen[storage.data_ptr()] = value
        return 0 if known else storage.nbytes()
    if isinstance(value, list | tuple):
        return sum(held_bytes(each, seen) for each in value)
    if isinstance(value, dict):
        return sum(held_bytes(each, seen) for each in value.values())
    if id(value) in seen or not type(value).__module__.startswith("longspan"):
        return 0
    seen[id(value)] = value  # or another object may get its number
    slots = getattr(type(value), "__slots__", ())
    names = {*slots, *getattr(value, "__dict__", {})} - {*HOST, *OF_STATES}
    return sum(held_bytes(getattr(value, name, None), seen) for name in sorted(names))


@pytest.mark.parametrize("name", METHODS)
def test_an_estimate_is_what_is_held(name: str) -> None:
    method = METHODS[name]
    static, states, limits = stepped(method)
    rows: Any = [
        SimpleNamespace(states=[state], length=tokens)
        for state, tokens in zip(states, HELD, strict=True)
    ]
    steps = room.step_bytes(method, [GEOMETRY], [None], HELD, limits)
    decoder: Any = SimpleNamespace(geometries=[GEOMETRY], windows=[None])
    (said,) = room.pools(method, decoder, rows, limits, steps)
    found = held_bytes(static, {})
    # a share of what is beside keys and values, or of all, where there is little of that
    assert abs(said - found) < max(TOLERANCE * steps[0].kept, 0.005 * found)


@pytest.mark.parametrize("shared", [True, False])
def test_buffers_have_to_fit_with_it(monkeypatch: pytest.MonkeyPatch, shared: bool) -> None:
    """What nobody else holds makes room: keys and values, and an index that moves."""
    method, limits = METHODS["loki"], [tokens + MORE for tokens in HELD]
    states = [sealed(method, tokens) for tokens in HELD]
    rows: Any = [
        SimpleNamespace(states=[state], length=tokens, shared=shared)
        for state, tokens in zip(states, HELD, strict=True)
    ]
    decoder: Any = SimpleNamespace(geometries=[GEOMETRY], windows=[None])
    steps = room.step_bytes(method, [GEOMETRY], [None], HELD, limits)
    (said,) = room.pools(method, decoder, rows, limits, steps)
    freed = sum(state.store.nbytes + state.memory()["index_bytes"] for state in states)
    most = 2 * said - (0 if shared else freed)  # the old and the new one while the layer moves
    monkeypatch.setattr(room, "available", lambda device: most)
    room.check_pools(method, decoder, rows, limits)
    monkeypatch.setattr(room, "available", lambda device: most - 1)
    with pytest.raises(ValueError, match="buffers of 1500 tokens for 2 rows need"):
        room.check_pools(method, decoder, rows, limits)


@pytest.mark.parametrize("name", METHODS)
def test_short_rows_have_an_estimate_too(name: str) -> None:
    for held in ((1,), (5, 40)):
        limits = [each + 1 for each in held]
        (step,) = room.step_bytes(METHODS[name], [GEOMETRY], [None], held, limits)
        assert 0 <= step.kept < 10**6


def test_a_layer_that_is_dense_has_no_tables() -> None:
    for method in (Quest(), MagicPIG(), replace(Loki(), dense_layers=(0,))):
        assert room.step_bytes(method, [GEOMETRY], [None], HELD, HELD) == [StepBytes()]
    sliding = room.step_bytes(Loki(dense_layers=()), [GEOMETRY], [64], HELD, HELD)
    assert sliding == [None]
