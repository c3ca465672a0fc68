"""The step in one call is the step part by part, and serves no more than it should."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from tests.methods.cases import assert_close, layer, sealed

from longspan.methods.retrieval import RetrievalState
from longspan.methods.retroinfer import RetroInfer
from longspan.methods.wave_step import WaveStepState
from longspan_kernels.merge import merge

if TYPE_CHECKING:
    from tests.methods.cases import Layer


def state_of(given: Layer, method: RetroInfer, tokens: int) -> WaveStepState:
    state = sealed(given, method, tokens)
    assert isinstance(state, WaveStepState)
    return state


@pytest.mark.parametrize("vote", ["sum", "max"])
def test_one_call_is_the_parts(vote: Any) -> None:
    given = layer(2400, groups=2, heads=3)
    state = state_of(given, RetroInfer(retrieval_budget=0.03, vote=vote, update_tokens=400), 1290)
    for position in range(1290, 2400):  # generated tokens make parts of the store
        state.append(given.k_GTD[:, position], given.v_GTD[:, position])
        if position % 131:
            continue
        q_HD = given.q_HTD[:, position]
        assert state.served()
        found, work = state.decode(q_HD), state.work()
        by_parts = RetrievalState.read(state, q_HD)
        state.tell(by_parts)
        right = state.work()
        assert_close(found, merge(by_parts.partials))
        assert work.exact_tokens == right.exact_tokens
        assert work.estimated_tokens == right.estimated_tokens
        assert work.index_bytes < right.index_bytes, "centroids are read once"
    assert len(state.store.parts) > 1


@pytest.mark.parametrize(
    "options",
    [
        {"vote": "sized"},
        {"vote": "unmet"},
        {"estimation": "gaussian"},
        {"tail": "segment_mean"},
        {"coverage": 0.9},
        {"clusters_per_group": 8},
        {"placement": "wave_buffer"},
    ],
    ids=str,
)
def test_what_needs_the_parts_gets_them(options: dict[str, Any]) -> None:
    assert not state_of(layer(1300), RetroInfer(**options), 1299).served()


def test_without_estimation() -> None:
    given = layer(1300)
    state = state_of(given, RetroInfer(estimation="none"), 1299)
    given.step(state, 1299)
    assert state.served()
    assert state.selection.estimated is None
    assert state.work().estimated_tokens == 0
    with pytest.raises(ValueError, match="q holds NaN"):
        state.decode(torch.full_like(given.q_HTD[:, 0], torch.nan))
