"""Steps of fixed shape through layers that the model itself limits to a window."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from tests.models.static_steps import METHODS, greedy, sessions, watched

from longspan.methods.full import Full
from longspan.models.window import WindowState

if TYPE_CHECKING:
    from tests.models.dense import Load

SLIDING = ("gemma2", "gemma3", "gpt_oss", "qwen2_sliding")
"""Windows of 12, one of them with a softcap, one with sinks in its softmax."""
LENGTHS = (40, 9, 1)
"""A window that is full, one that gets full on the way, and one that hardly holds anything."""


def same(right: list[torch.Tensor], found: list[torch.Tensor]) -> None:
    for a_BV, b_BV in zip(right, found, strict=True):
        torch.testing.assert_close(a_BV, b_BV, atol=3e-4, rtol=1e-4)


@pytest.mark.parametrize("family", SLIDING)
def test_it_says_what_the_states_say(load: Load, family: str) -> None:
    """Turns, views, forks and tapes included."""
    said, tapes = [], []
    for session in sessions(load, Full(), LENGTHS, family=family):
        session.record()
        told = greedy(session, 15)
        view = session.select([2, 0])
        told += [view.decode([7, 8]), view.decode([9, 10])]
        told += greedy(session.fork(1), 4)
        told += greedy(session, 3)
        told.append(session.prefill([[], [20, 21], list(range(20, 40))]))
        told += greedy(session, 14)
        said.append(told)
        tapes.append([session.recorded(row) for row in range(3)])
    assert session._rows[0].static is not None
    same(*said)
    for a, b in zip(*tapes, strict=True):
        assert len(a) == len(b) > 0


@pytest.mark.parametrize("name", ["retroinfer", "hybrid, wave_buffer", "h2o"])
def test_other_layers_may_have_an_index(load: Load, name: str) -> None:
    both = sessions(load, METHODS[name], (180, 75, 3), family="gemma3")
    same(*[greedy(session, 40) for session in both])
    assert both[1].steps_by == "buffers"


@pytest.mark.parametrize("family", ["gemma2", "gpt_oss"])
def test_a_step_waits_for_nothing_and_can_be_done_again(
    load: Load, family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, session = sessions(load, Full(), LENGTHS, family=family)
    seen = watched(session, 20, monkeypatch)
    assert all(each == seen[0] for each in seen)
    step = session._rows[0].static
    assert step is not None
    with torch.inference_mode():
        first_BV, again_BV = type(step).step(step).clone(), type(step).step(step)
    assert torch.equal(first_BV, again_BV)


def test_a_limit_within_the_window_and_buffers_made_anew(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("longspan.models.static.AHEAD_TOKENS", 5)
    both = sessions(load, Full(), (3, 1), family="gemma2", max_tokens=11)
    same(*[greedy(session, 8) for session in both])
    for session in both:
        with pytest.raises(ValueError, match="the session takes 11"):
            session.decode([5, 5])


def test_windows_hold_their_last_tokens_only(load: Load) -> None:
    _, session = sessions(load, Full(), LENGTHS, family="gemma2")
    greedy(session, 2)
    step: Any = session._rows[0].static
    windows = [layer for layer in step.layers if hasattr(layer, "slots")]
    assert windows
    assert all(layer.keys_BGCD.shape[2] == 12 for layer in windows)
    states = [state for row in session._rows for state in row.states]
    step.settle()
    for state in states:
        if isinstance(state, WindowState):
            assert state._kept <= 12
