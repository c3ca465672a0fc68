"""Received attention against the columns of a softmax matrix that is written out."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from tests.methods.cases import Layer, layer
from torch import Tensor

from longspan.methods import received
from longspan.methods.full import Full
from longspan.methods.received import Received, check_whole, keys_at

SHAPES: dict[str, dict[str, Any]] = {
    "one head": {"groups": 1, "heads": 1},
    "groups of three": {"groups": 2, "heads": 3},
    "soft cap": {"softcap": 3.0},
    "bfloat16": {"heads": 4, "size": 16, "dtype": torch.bfloat16},
    "float16": {"heads": 4, "size": 16, "dtype": torch.float16},
}
BOUNDS = [(0, 203), (0, 1, 3, 90, 203), (0, 64, 128, 192, 203)]
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 1e-3, torch.float16: 1e-3}


def columns(given: Layer, tokens: int, window: int | None) -> Tensor:
    """float64 [G, T]: sums over the rows of all positions, or of the next `window`."""
    total_GT = torch.zeros(len(given.k_GTD), tokens, dtype=torch.float64)
    for position in range(tokens):
        weight_HT = given.scores(position, position + 1).softmax(-1)
        weight_GT = weight_HT.reshape(len(total_GT), -1, position + 1).mean(1)
        if window is not None:
            weight_GT[:, position] = 0  # its own
            weight_GT[:, : max(0, position - window)] = 0
        total_GT[:, : position + 1] += weight_GT
    return total_GT


def summed(given: Layer, window: int | None, *bounds: int) -> Tensor:
    state = Full().layer(given.geometry)
    sums = Received(given.geometry, torch.device("cpu"), window)
    for first, stop in itertools.pairwise(bounds):
        (chunk,) = given.prefill(state, first, stop)
        sums.add(given.q_HTD[:, first:stop], chunk.lse, state.store)
    return sums.of(0, bounds[-1])


@pytest.fixture
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a chunk has several, ragged ones."""
    monkeypatch.setattr(received, "KEYS", 32)
    monkeypatch.setattr(received, "QUERIES", 24)


@pytest.mark.usefixtures("_small_blocks")
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("window", [None, 1, 40, 1000])
def test_it_is_the_columns_of_the_softmax_however_the_prompt_is_cut(
    shape: str, window: int | None
) -> None:
    given = layer(203, **SHAPES[shape])
    right_GT = columns(given, 203, window).float()
    for bounds in BOUNDS:
        found_GT = summed(given, window, *bounds)
        assert found_GT.dtype == torch.float32
        tolerance = TOLERANCE[given.geometry.dtype]
        torch.testing.assert_close(found_GT, right_GT, atol=tolerance, rtol=tolerance)


def test_all_that_a_query_gives_is_received() -> None:
    given = layer(300, heads=3)
    assert summed(given, None, 0, 120, 300).sum(1).tolist() == pytest.approx([300, 300], rel=1e-5)


@pytest.mark.parametrize("window", [None, 30])
def test_steps_add_their_row_and_a_further_chunk_goes_on(window: int | None) -> None:
    given = layer(260, heads=3)
    state, sums = (
        Full().layer(given.geometry),
        Received(given.geometry, torch.device("cpu"), window),
    )
    for first, stop in ((0, 150), (170, 260)):
        (chunk,) = given.prefill(state, first, stop)
        sums.add(given.q_HTD[:, first:stop], chunk.lse, state.store)
        for position in range(stop, 170):
            lse_H = given.step(state, position).lse
            sums.add(given.q_HTD[:, position, None], lse_H[:, None], state.store)
    right_GT = columns(given, 260, window).float()
    torch.testing.assert_close(sums.of(0, 260), right_GT, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(sums.of(31, 77), right_GT[:, 31:77], atol=1e-5, rtol=1e-5)


def test_no_weight_counts_for_more_than_one() -> None:
    """A sparse prefill's log-sum-exp is lower than that of all keys."""
    given = layer(90)
    state, sums = Full().layer(given.geometry), Received(given.geometry, torch.device("cpu"))
    (chunk,) = given.prefill(state, 0, 90)
    sums.add(given.q_HTD[:, :90], chunk.lse - 3.0, state.store)
    right_GT = torch.zeros(2, 90)
    for position in range(90):
        z_HT = given.scores(position, position + 1)
        weight_HT = (z_HT - z_HT.logsumexp(-1, keepdim=True) + 3.0).exp()
        assert (weight_HT > 1).any()
        weight_GT = weight_HT.clamp(max=1).reshape(2, 2, -1).mean(1)
        right_GT[:, : position + 1] += weight_GT.float()
    torch.testing.assert_close(sums.of(0, 90), right_GT)


def test_chosen_slots_receive_what_the_whole_row_gives_them() -> None:
    """Wherever they lie: in frozen parts or behind them."""
    given = layer(120, heads=3)
    state = Full().layer(given.geometry)
    given.prefill(state, 0, 119)
    for stop in (40, 90):
        state.store.freeze(stop)
    lse_H = given.step(state, 119).lse
    some, every = (Received(given.geometry, torch.device("cpu")) for _ in "se")
    slot_GK = torch.tensor([[0, 39, 40, 89, 118], [3, 50, 91, 100, 119]])
    assert torch.equal(keys_at(state.store, slot_GK)[1, 2], given.k_GTD[1, 91])
    q_HD = given.q_HTD[:, 119]
    some.add_to(slot_GK, q_HD, lse_H, state.store)
    every.add(q_HD[:, None], lse_H[:, None], state.store)
    right_GT = torch.zeros(2, 120).scatter(1, slot_GK, every.of(0, 120).gather(1, slot_GK))
    torch.testing.assert_close(some.of(0, 120), right_GT)
    partly = Received(given.geometry, torch.device("cpu"))
    partly.add(q_HD[:, None], lse_H[:, None], state.store, start=100)
    assert not partly.of(0, 100).any()
    torch.testing.assert_close(partly.of(100, 120), every.of(100, 120))


def test_a_fork_counts_alone() -> None:
    given = layer(60)
    state, sums = Full().layer(given.geometry), Received(given.geometry, torch.device("cpu"))
    (chunk,) = given.prefill(state, 0, 50)
    sums.add(given.q_HTD[:, :50], chunk.lse, state.store)
    before, twin = sums.of(0, 50).clone(), sums.fork()
    twin.add(given.q_HTD[:, :50], chunk.lse, state.store)
    assert torch.equal(sums.of(0, 50), before)
    assert torch.equal(twin.of(0, 50), 2 * before)
    assert twin.nbytes == sums.nbytes == 2 * 50 * 4


def test_a_sample_of_queries_is_refused() -> None:
    q_HSD = torch.zeros(4, 30, 8)
    assert check_whole("h2o", q_HSD, 30) is q_HSD
    for known, count in ((q_HSD, 30), (None, 0)):
        with pytest.raises(ValueError, match=f"method = h2o: .* of 31 read elsewhere {count} are"):
            check_whole("h2o", known, 31)
