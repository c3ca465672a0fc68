"""The decode step on fixed buffers: what it says, and that a CUDA graph could be made of it."""

from __future__ import annotations

from dataclasses import asdict
from importlib.util import find_spec
from typing import TYPE_CHECKING

import pytest
import torch

from longspan.methods.retroinfer import RetroInfer

if TYPE_CHECKING:
    from tests.models.dense import Load


from tests.models.static_steps import (
    BUFFERED,
    BUFFERED_TOKENS,
    BY_CODES,
    LENGTHS,
    METHODS,
    STEPS,
    WEIGHED,
    greedy,
    joined,
    sessions,
    watched,
)


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


@pytest.mark.parametrize("name", METHODS)
def test_steps_wait_for_nothing_and_are_the_same_operations(
    load: Load, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What capturing a graph, and replaying it in later steps, needs. Updates lie between, and the
    first index of the short row.
    """
    steps = 56
    _, session = sessions(load, METHODS[name])
    seen = watched(session, steps, monkeypatch)
    assert len(seen) == steps
    assert len(seen[0]) > 50
    assert all(each == seen[0] for each in seen)


@pytest.mark.skipif(not find_spec("triton"), reason="Triton is not installed")
@pytest.mark.skipif(torch.cuda.is_available(), reason="it has the real thing")
@pytest.mark.parametrize(
    "name", ["retroinfer", BUFFERED, "magicpig", "loki", "hybrid", *BY_CODES[1:]]
)
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


@pytest.mark.parametrize("name", ["retroinfer", BUFFERED, "magicpig", *WEIGHED])
def test_a_step_done_again_changes_nothing(load: Load, name: str) -> None:
    """Warming up before the capture does that."""
    _, session = sessions(load, METHODS[name])
    session.decode([5] * len(LENGTHS))
    step = session._rows[0].static
    assert step is not None
    with torch.inference_mode():
        first_BV, again_BV = step.step().clone(), step.step()
    assert torch.equal(first_BV, again_BV)


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


def test_what_cannot_be_is_said(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match=r"model\.graphs = 'on': there is no CUDA device"):
        load("llama", graphs="on")
