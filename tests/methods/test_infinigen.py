"""What InfiniGen reads, against columns, scores and counts written out."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from tests.methods.cases import Layer, assert_close, layer
from torch import Tensor

from longspan.methods.infinigen import InfiniGen, InfiniGenState
from longspan.types import Partial

if TYPE_CHECKING:
    from longspan.types import Runs

SMALL: dict[str, Any] = {
    "sink_tokens": 3, "local_tokens": 20, "update_tokens": 30, "dense_layers": (), "rank": 0.5,
}  # fmt: skip
PROMPT = 400


def given(**options: Any) -> Layer:
    """Directions of the queries, not of the axes, carry the scores."""
    found = layer(PROMPT + 40, size=32, heads=3, **options)
    turn_DD = torch.linalg.qr(torch.randn(32, 32, generator=torch.Generator().manual_seed(9)))[0]
    q_HTD = found.q_HTD * torch.linspace(2.5, 0.05, 32) @ turn_DD
    return replace(found, q_HTD=q_HTD.to(found.q_HTD.dtype))


def read(method: InfiniGen, given: Layer) -> InfiniGenState:
    state = method.layer(given.geometry)
    assert isinstance(state, InfiniGenState)
    given.prefill(state, 0, 150, PROMPT)
    state.seal()
    return state


def partial_scores(given: Layer, q_HD: Tensor, tokens: int, rank: int) -> Tensor:
    """float64 [H, T]: by the columns that the prompt chooses, as in the paper."""
    rows, first, stop = [], SMALL["sink_tokens"], PROMPT - SMALL["local_tokens"]
    for group, keys_TD in enumerate(given.k_GTD.double()):
        heads = slice(3 * group, 3 * group + 3)
        queries_SD = given.q_HTD[heads, :PROMPT].double().flatten(0, 1)
        turn_DD = torch.linalg.svd(queries_SD).Vh.T
        weight_D = (queries_SD @ turn_DD).abs().mean(0)
        weight_D += (keys_TD[first:stop] @ turn_DD).abs().mean(0)
        kept_DW = turn_DD[:, weight_D.argsort(descending=True)[:rank]]
        rows.append(q_HD[heads].double() @ kept_DW @ (keys_TD[:tokens] @ kept_DW).T)
    return torch.cat(rows) * given.geometry.scale


def chosen(state: InfiniGenState) -> Tensor:
    """int64 [H, K]."""
    runs: Runs | None = state.selection.retrieved
    assert runs is not None
    return runs.start_NK.long()


def test_turned_columns_choose_what_a_guess_asks_for_and_the_query_attends_it() -> None:
    layer_ = given()
    state = read(InfiniGen(**SMALL, top_tokens=25), layer_)
    first, stop = state.indexed
    for position in range(PROMPT, PROMPT + 20):
        q_HD, guess_HD = layer_.q_HTD[:, position], layer_.q_HTD[:, position - 200]
        assert state.expects
        state.expect(guess_HD)
        state.append(layer_.k_GTD[:, position], layer_.v_GTD[:, position])
        found, slot_HK = state.decode(q_HD), chosen(state)
        score_HT = partial_scores(layer_, guess_HD, stop, 16)[:, first:]
        least_H = score_HT.gather(1, slot_HK - first).amin(1)
        slack_H = 0.01 * (score_HT.amax(1) - score_HT.amin(1))  # codes of a byte
        assert bool((least_H >= score_HT.topk(25).values[:, -1] - slack_H).all())
        read_HT = torch.zeros(6, position + 1, dtype=torch.bool).scatter(1, slot_HK, value=True)
        read_HT[:, :first] = read_HT[:, stop:] = True
        z_HT = layer_.scores(position, position + 1).masked_fill(~read_HT, -torch.inf)
        v_HTD = layer_.v_GTD[:, : position + 1].double().repeat_interleave(3, 0)
        out_HD = (z_HT.softmax(-1)[:, None] @ v_HTD)[:, 0]
        assert_close(found, Partial(out_HD.float(), z_HT.logsumexp(-1).float()))


def test_a_guess_serves_one_step_and_speculate_can_be_off() -> None:
    layer_ = given()
    method = InfiniGen(**SMALL, top_tokens=25)
    state, own = read(method, layer_), read(replace(method, speculate=False), layer_)
    assert not own.expects
    state.expect(layer_.q_HTD[:, 7])
    for position, same in ((PROMPT, False), (PROMPT + 1, True)):
        layer_.step(state, position)
        layer_.step(own, position)
        assert torch.equal(chosen(state), chosen(own)) == same
    short = method.layer(layer_.geometry)
    layer_.prefill(short, 0, 40)
    short.seal()
    assert not short.expects, "nothing is indexed, so that everything is read"
    assert not InfiniGen().layer(layer_.geometry).expects, "the first layer is attended in full"


@pytest.mark.parametrize("alpha", [1.5, 4.0])
def test_alpha_counts_over_all_heads_up_to_the_budget(alpha: float) -> None:
    """And from the best score of all, which the static tokens may have."""
    layer_ = given()
    state = read(InfiniGen(**SMALL, alpha=alpha, retrieval_budget=1.0), layer_)
    capped = read(InfiniGen(**SMALL, alpha=alpha, top_tokens=5), layer_)
    first, stop = state.indexed
    seen, static_best = set(), 0
    for position in range(PROMPT, PROMPT + 20):
        for each in (state, capped):
            layer_.step(each, position)
        score_HT = partial_scores(layer_, layer_.q_HTD[:, position], position + 1, 16)
        best_H1 = score_HT.amax(1, keepdim=True)
        static_best += int((best_H1 > score_HT[:, first:stop].amax(1, keepdim=True)).sum())
        counts = [
            int((score_HT[:, first:stop] >= best_H1 - alpha + off).sum(1).float().mean())
            for off in (0.05, -0.05)
        ]
        found = chosen(state).shape[1]
        assert max(1, counts[0]) <= found <= max(1, counts[1])
        assert chosen(capped).shape[1] == min(found, 5)
        seen.add(found)
    assert len(seen) > 3
    assert static_best > 5
    assert state.work().distances == 2 * (stop - first), "counting and choosing scan"


def test_what_it_cannot_have_is_named() -> None:
    for wrong in ({"alpha": 0.0}, {"rank": 1.5}, {"candidates": 0.5}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            InfiniGen(**wrong)  # type: ignore[arg-type]
    obstacle = InfiniGen().static_obstacle(given().geometry)
    assert obstacle is not None
    assert "infinigen" in obstacle
