"""H2O against a slow simulation of what it reads, prompt by prompt and step by step."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.methods.cases import Layer, assert_close, layer
from tests.methods.slow_h2o import Slow

from longspan.methods.h2o import H2O, H2OState
from longspan.prefill.xattention import XAttention
from longspan.studies.once import adopted
from longspan.types import Partial


def steps(given: Layer, state: H2OState, slow: Slow, stop: int) -> set[int]:
    """Steps up to `stop` are those of the simulation; all heavy hitters there were."""
    seen: set[int] = set()
    for position in range(slow.tokens, stop):
        assert_close(given.step(state, position), slow.step())
        if slow.heavy is None:
            assert state.selection.retrieved is None
            assert state.work().exact_tokens == position + 1
            continue
        assert state.selection.retrieved is not None
        assert state.selection.retrieved.start_NK.tolist() == slow.heavy
        assert slow.room is not None
        recent = slow.room - slow.room // 2
        assert state.selection.steady == ((position + 1 - recent, position + 1),)
        assert state.work().exact_tokens == slow.room
        seen |= {slot for kept in slow.heavy for slot in kept}
    return seen


@pytest.mark.parametrize(
    "settings",
    [
        {"budget": 0.1},
        {"budget": 0.1, "score": "mean"},
        {"kept_tokens": 31},
        {"kept_tokens": 2},
        {"layer_budgets": (0.2, 0.1)},
        {"budget": 0.001},
    ],
    ids=str,
)
@pytest.mark.parametrize("softcap", [None, 3.0])
def test_steps_read_what_received_most_and_the_last(
    settings: dict[str, Any], softcap: float | None
) -> None:
    given = layer(220, softcap=softcap, heads=3)
    method = H2O(**settings)
    state, slow = method.layer(given.geometry), Slow(given, method)
    given.prefill(state, 0, 1, 100, 160)
    state.seal()
    slow.prompt(160)
    assert steps(given, state, slow, 220)
    torch.testing.assert_close(state.received.of(0, 220), torch.tensor(slow.sums))


@pytest.mark.parametrize("score", ["sum", "mean"])
def test_a_generated_token_that_much_looks_at_stays(score: Any) -> None:
    given = layer(240)
    given.k_GTD[:, 170] *= 6
    method = H2O(kept_tokens=40, score=score)
    state, slow = method.layer(given.geometry), Slow(given, method)
    given.prefill(state, 0, 160)
    state.seal()
    slow.prompt(160)
    seen = steps(given, state, slow, 240)
    assert slow.heavy is not None
    assert all(170 in kept for kept in slow.heavy)
    assert 171 not in seen


def test_a_prompt_that_fits_is_outgrown_by_its_answer() -> None:
    given = layer(140)
    method = H2O(kept_tokens=60)
    state, slow = method.layer(given.geometry), Slow(given, method)
    given.prefill(state, 0, 45)
    state.seal()
    slow.prompt(45)
    assert max(steps(given, state, slow, 140)) > 45


def test_a_further_turn_sees_everything_and_chooses_anew() -> None:
    given = layer(330)
    method = H2O(budget=0.12)
    state, slow = method.layer(given.geometry), Slow(given, method)
    for first, stop, answered in ((0, 150, 180), (180, 240, 270), (270, 271, 300)):
        chunks = given.prefill(state, first, stop)
        last = chunks[-1]
        assert_close(Partial(last.out[:, -1], last.lse[:, -1]), given.oracle(stop - 1))
        slow.prompt(stop)
        twin = state.fork()
        assert_close(twin.decode(given.q_HTD[:, stop - 1]), given.oracle(stop - 1))  # unsealed
        state.seal()
        steps(given, state, slow, answered)
        state.seal()  # changes nothing
        assert state.work().exact_tokens == slow.room == method.kept(stop, 0)


@pytest.mark.parametrize("score", ["sum", "mean"])
def test_chunks_do_not_matter(score: Any) -> None:
    given, method = layer(320, heads=4), H2O(kept_tokens=40, score=score)
    bounds = ((0, 300), (0, 7, 8, 250, 300), (*range(0, 300, 32), 300))
    states = [method.layer(given.geometry) for _ in bounds]
    for state, cut in zip(states, bounds, strict=True):
        given.prefill(state, *cut)
        state.seal()
    for position in range(300, 320):
        right, *others = (given.step(state, position) for state in states)
        for found in others:
            assert_close(found, right)


def test_forks_weigh_alone() -> None:
    given, other = layer(260), layer(260, seed=3)
    method = H2O(kept_tokens=24)
    state, slow = method.layer(given.geometry), Slow(given, method)
    given.prefill(state, 0, 200)
    state.seal()
    slow.prompt(200)
    steps(given, state, slow, 210)
    twin = state.fork()
    for position in range(210, 240):
        other.step(twin, position)
    torch.testing.assert_close(state.received.of(0, 210), torch.tensor(slow.sums))
    steps(given, state, slow, 260)


def test_a_prompt_read_elsewhere_needs_all_its_queries() -> None:
    given, method = layer(320), H2O(kept_tokens=40)
    prompt = given.k_GTD[:, :300], given.v_GTD[:, :300]
    found = adopted(method, given.geometry, prompt, given.q_HTD[:, :300])
    right = method.layer(given.geometry)
    given.prefill(right, 0, 300)
    right.seal()
    for position in range(300, 320):
        assert_close(given.step(found, position), given.step(right, position))
    for queries_HSD in (None, given.q_HTD[:, 200:300]):
        with pytest.raises(ValueError, match="method = h2o: it sums the attention of all queries"):
            adopted(method, given.geometry, prompt, queries_HSD)


def test_a_sparse_prefill_gives_weights_too() -> None:
    given, method = layer(700), H2O(budget=0.1)
    state = method.layer(given.geometry)
    state.prefill_by = XAttention(threshold=0.5, block=64)
    given.prefill(state, 0, 400, 690)
    state.seal()
    seen = torch.arange(690, 0, -1)
    assert (state.received.of(0, 690) <= seen).all()
    for position in range(690, 700):
        assert given.step(state, position).out.isfinite().all()
    assert state.work().exact_tokens == 69


def test_what_is_summed_counts_as_memory_and_settings_are_checked() -> None:
    given = layer(100)
    state = H2O().layer(given.geometry)
    given.prefill(state, 0, 100)
    assert state.memory()["index_bytes"] == 2 * 100 * 4
    assert state.remembers
    for wrong in ({"kept_tokens": 1}, {"score": "max"}, {"budget": 0.0}, {"placement": "moon"}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            H2O(**wrong)  # type: ignore[arg-type]
