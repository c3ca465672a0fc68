"""What ShadowKV reads, held against full attention to what it says it reads."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.methods.cases import assert_close, layer

from longspan.methods.shadowkv import ShadowKV

SMALL: dict[str, Any] = {"retrieval_budget": 0.1, "outlier_budget": 0.03, "update_tokens": 20}


def test_a_step_attends_what_it_names() -> None:
    given = layer(460)
    state = ShadowKV(**SMALL).layer(given.geometry)
    given.prefill(state, 0, 200, 390)
    state.seal()
    assert state.indexed == (0, 352)  # whole chunks, four of which are local
    for position in range(390, 460):
        found = given.step(state, position)
        assert state.indexed[1] % 8 == 0
    assert state.indexed[1] > 400
    runs = state.selection.retrieved
    assert runs is not None
    steady = list(range(state.indexed[1], 460))
    for head in range(4):
        starts = runs.start_NK[head // 2].tolist()
        keep = torch.tensor([slot for s in starts for slot in range(s, s + 8)] + steady)
        assert len(set(keep.tolist())) == len(keep)
        weight_K = given.scores(459, 460)[head, keep].softmax(-1)
        right_D = weight_K @ given.v_GTD[head // 2, keep].double()
        torch.testing.assert_close(found.out[head], right_D.float())
    outliers, wanted = round(0.03 * 44), -(-round(0.1 * state.indexed[1]) // 8)
    assert state.work().exact_tokens == 8 * (outliers + wanted) + len(steady)


def test_with_everything_it_is_full_attention() -> None:
    given = layer(400)
    method = ShadowKV(retrieval_budget=1.0, sink_tokens=3, update_tokens=24)
    state = method.layer(given.geometry)
    given.prefill(state, 0, 340)
    state.seal()
    for position in range(340, 400):
        assert_close(given.step(state, position), given.oracle(position))


@pytest.mark.parametrize("placement", ["gpu", "wave_buffer"])
def test_it_reads_the_same_wherever_it_lies(placement: Any) -> None:
    given = layer(1500, heads=4, size=16)
    states = [
        ShadowKV(**SMALL, placement=where).layer(given.geometry) for where in (placement, "cpu")
    ]
    for state in states:
        given.prefill(state, 0, 1350)
        state.seal()
    for position in range(1350, 1500):
        found, right = (given.step(state, position) for state in states)
        assert_close(found, right)


def test_a_short_prompt_is_indexed_when_it_has_grown() -> None:
    given = layer(200)
    state = ShadowKV(**SMALL).layer(given.geometry)
    given.prefill(state, 0, 12)
    state.seal()
    for position in range(12, 200):
        found = given.step(state, position)
    assert state.indexed[1] > 100
    assert found.out.isfinite().all()
