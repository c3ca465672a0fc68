"""Static tokens on the model's device, searched meanwhile: the same tokens, the same result."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tests.methods.cases import assert_close, layer

from longspan.methods.retrieval_attention import RetrievalAttention
from longspan.methods.split import SplitState

METHOD = RetrievalAttention(
    sink_tokens=4, local_tokens=16, update_tokens=64, top_tokens=24, query_window=32,
    query_tokens=64, beam=48, degree=8,
)  # fmt: skip


def test_both_parts_at_once_are_both_parts() -> None:
    given = layer(700)
    states = [replace(METHOD, static=s).layer(given.geometry) for s in ("with_rest", "device")]
    assert isinstance(states[1], SplitState)
    for state in states:
        given.prefill(state, 0, 300, 600)
        state.seal()
    for position in range(600, 699):  # tokens enter the index meanwhile
        one, other = (given.step(state, position) for state in states)
        assert_close(other, one)
        assert states[0].selection.steady == states[1].selection.steady
    assert states[0].indexed == states[1].indexed > (4, 600)
    twin = states[1].fork()  # which copies static tokens of its own
    assert_close(given.step(twin, 699), given.step(states[1], 699))
    assert len(twin.store) == 700


def test_short_contexts_are_attended_in_full() -> None:
    given = layer(60)
    state = replace(METHOD, static="device").layer(given.geometry)
    given.prefill(state, 0, 50)
    state.seal()
    found = given.step(state, 50)
    torch.testing.assert_close(found.out, given.oracle(50).out, atol=1e-5, rtol=1e-5)


def test_the_rest_must_be_in_host_memory() -> None:
    with pytest.raises(ValueError, match=r"method.placement = 'gpu'.*right would be cpu"):
        replace(METHOD, static="device", placement="gpu").layer(layer(5).geometry)
