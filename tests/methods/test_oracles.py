"""What the oracles, the window and the random choice read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from tests.methods.cases import layer

from longspan.methods.oracle_topk import OracleTopK
from longspan.methods.oracle_topp import OracleTopP
from longspan.methods.random_k import RandomK
from longspan.methods.streaming_llm import StreamingLLM

if TYPE_CHECKING:
    from longspan.types import Runs


def chosen(runs: Runs | None) -> list[set[int]]:
    assert runs is not None
    return [
        set(row[:count].tolist())
        for row, count in zip(runs.start_NK, runs.count_N.tolist(), strict=True)
    ]


def test_topk_reads_the_largest_scores_of_each_query_head() -> None:
    given = layer(300)
    state = OracleTopK(budget=0.1, sink_tokens=2, local_tokens=8).layer(given.geometry)
    given.prefill(state, 0, 299)
    given.step(state, 299)
    z_HT = given.scores(299, 300)[:, 2:292]
    right = [set((row.topk(29).indices + 2).tolist()) for row in z_HT]
    assert chosen(state.selection.retrieved) == right
    assert state.work().exact_tokens == 2 + 8 + 29
    assert state.work().distances == 290


@pytest.mark.parametrize("coverage", [0.3, 0.8, 0.99])
def test_topp_reads_the_fewest_tokens_that_hold_the_mass(coverage: float) -> None:
    given = layer(300)
    state = OracleTopP(coverage=coverage, sink_tokens=2, local_tokens=8).layer(given.geometry)
    given.prefill(state, 0, 299)
    given.step(state, 299)
    share_HT = given.scores(299, 300).softmax(-1)
    for row, slots in enumerate(chosen(state.selection.retrieved)):
        steady = share_HT[row, :2].sum() + share_HT[row, 292:].sum()
        mass = sorted((float(share_HT[row, slot]) for slot in slots), reverse=True)
        assert steady + sum(mass) >= coverage - 1e-6
        assert not mass or steady + sum(mass[:-1]) < coverage + 1e-6


def test_random_draws_depend_on_seed_layer_and_length_only() -> None:
    given = layer(300)

    def draws(seed: int) -> list[list[set[int]]]:
        state = RandomK(seed=seed, budget=0.1).layer(given.geometry)
        given.prefill(state, 0, 290)
        found = []
        for position in range(290, 293):
            given.step(state, position)
            found.append(chosen(state.selection.retrieved))
        return found

    assert draws(1) == draws(1)
    assert draws(1) != draws(2)
    one, two, _ = draws(1)
    assert one != two
    assert all(len(slots) == round(0.1 * (291 - 68)) for slots in one)
    assert all(4 <= slot < 291 - 64 for slots in one for slot in slots)


def test_streaming_reads_sinks_and_window() -> None:
    given = layer(300)
    state = StreamingLLM(budget=0.1).layer(given.geometry)
    given.prefill(state, 0, 299)
    found = given.step(state, 299)
    assert state.selection.steady == ((0, 4), (300 - 26, 300))
    keep = torch.cat([torch.arange(4), torch.arange(274, 300)])
    weight_HT = given.scores(299, 300)[:, keep].softmax(-1)
    v_HTD = given.v_GTD[:, keep].double().repeat_interleave(2, 0)
    right_HD = (weight_HT[:, None] @ v_HTD)[:, 0].float()
    torch.testing.assert_close(found.out, right_HD)
    windowed = StreamingLLM(window_tokens=7, sink_tokens=0).layer(given.geometry)
    given.prefill(windowed, 0, 299)
    given.step(windowed, 299)
    assert windowed.selection.steady == ((293, 300),)
