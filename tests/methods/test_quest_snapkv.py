"""What Quest and SnapKV read, against choices made the slow way."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tests.methods.cases import Layer, assert_close, layer

from longspan.methods.frame import StoredState
from longspan.methods.full import Full
from longspan.methods.paged import PagedState
from longspan.methods.quest import Quest
from longspan.methods.snapkv import SnapKV, SnapState, pooled
from longspan.studies.once import adopted


def slow_choice(given: Layer, tokens: int, method: SnapKV) -> list[list[int]]:
    """The slots kept of a prompt, KV head by KV head and query by query."""
    window = method.window_tokens
    kept = method.kept(tokens, 0, window)
    before, heads = tokens - window, given.geometry.query_heads // given.geometry.kv_heads
    chosen = []
    for group in range(given.geometry.kv_heads):
        paid = []
        for head in range(group * heads, (group + 1) * heads):
            rows = [
                given.scores(t, t + 1)[head].softmax(-1)[:before] for t in range(before, tokens)
            ]
            paid.append(torch.stack(rows).sum(0))
        weight_T = (
            torch.stack(paid).mean(0) if method.group == "mean" else torch.stack(paid).amax(0)
        )
        around = F.pad(weight_T, (2, 2), value=0.0).unfold(0, 5, 1)
        pooled_T = around.mean(-1) if method.pooling == "mean" else around.amax(-1)
        chosen.append(sorted(pooled_T.topk(kept).indices.tolist()))
    return chosen


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"pooling": "max", "group": "max"},
        {"kept_tokens": 50, "window_tokens": 7},
        {"layer_budgets": (0.2, 0.1)},
    ],
)
@pytest.mark.parametrize("softcap", [None, 3.0])
def test_snapkv_keeps_what_the_window_attends(settings: dict[str, Any], softcap: float) -> None:
    given = layer(420, softcap=softcap, heads=3)
    method = SnapKV(**{"budget": 0.15, **settings})
    state = method.layer(given.geometry)
    given.prefill(state, 0, 100, 395, 400)
    state.seal()
    found = given.step(state, 400)
    runs = state.selection.retrieved
    assert runs is not None
    right = slow_choice(given, 400, method)
    assert runs.start_NK.tolist() == right
    assert state.selection.steady == ((400 - method.window_tokens, 401),)
    for head in range(6):
        keep = torch.tensor(right[head // 3] + list(range(400 - method.window_tokens, 401)))
        weight_K = given.scores(400, 401)[head, keep].softmax(-1)
        right_D = weight_K @ given.v_GTD[head // 3, keep].double()
        torch.testing.assert_close(found.out[head], right_D.float())
    assert state.work().exact_tokens == len(right[0]) + method.window_tokens + 1


def test_snapkv_with_room_for_all_is_full_attention() -> None:
    given = layer(330)
    state = SnapKV(budget=1.0).layer(given.geometry)
    given.prefill(state, 0, 300)
    state.seal()
    for position in range(300, 330):
        assert_close(given.step(state, position), given.oracle(position))


def test_a_further_turn_chooses_anew_with_its_own_window() -> None:
    given = layer(420)
    method = SnapKV(kept_tokens=60)
    state = method.layer(given.geometry)
    given.prefill(state, 0, 300)
    state.seal()
    for position in range(300, 310):
        given.step(state, position)
    (turn,) = given.prefill(state, 310, 360)
    assert_close(type(turn)(turn.out[:, -1], turn.lse[:, -1]), given.oracle(359))
    state.seal()
    first = state.fork()
    state.seal()
    for each in (first, state):
        given.step(each, 360)
        assert each.selection.retrieved is not None
        assert each.selection.retrieved.start_NK.tolist() == slow_choice(given, 360, method)


@pytest.mark.parametrize("turn", [1, 3, 40])
def test_a_short_turn_keeps_as_many_as_a_long_one(turn: int) -> None:
    given = layer(500)
    state = SnapKV(kept_tokens=60).layer(given.geometry)
    everything = SnapKV(budget=1.0).layer(given.geometry)
    for each in (state, everything):
        given.prefill(each, 0, 300)
        each.seal()
        given.step(each, 300)
        given.prefill(each, 301, 301 + turn)
        each.seal()
    given.step(state, 301 + turn)
    assert state.work().exact_tokens == 61
    assert_close(given.step(everything, 301 + turn), given.oracle(301 + turn))


def test_a_second_seal_keeps_the_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    given = layer(420)
    state = SnapKV(kept_tokens=60).layer(given.geometry)
    given.prefill(state, 0, 400)
    state.seal()
    first = given.step(state.fork(), 400)
    with monkeypatch.context() as patch:
        patch.setattr(SnapState, "seen", None)  # looking again would fail
        state.seal()
        state.fork().seal()
    assert torch.equal(given.step(state, 400).out, first.out)


def test_a_prompt_read_elsewhere_is_chosen_from_as_one_read_here() -> None:
    given = layer(420)
    method = SnapKV(kept_tokens=60)
    k_GTD, v_GTD, q_HTD = given.k_GTD[:, :400], given.v_GTD[:, :400], given.q_HTD[:, 300:400]
    state = adopted(method, given.geometry, (k_GTD, v_GTD), q_HTD)
    given.step(state, 400)
    assert state.selection.retrieved is not None
    assert state.selection.retrieved.start_NK.tolist() == slow_choice(given, 400, method)


@pytest.mark.parametrize("kernel", [1, 2, 5, 8])
def test_pooling_keeps_the_length(kernel: int) -> None:
    weight_GT = torch.rand(2, 30, generator=torch.Generator().manual_seed(0))
    for pooling in ("mean", "max"):
        assert pooled(weight_GT, kernel, pooling).shape == weight_GT.shape  # type: ignore[arg-type]
    assert torch.equal(pooled(weight_GT, 1, "mean"), weight_GT)


def quest(**settings: Any) -> Quest:
    return Quest(**{"dense_layers": (), "retrieval_budget": 0.2, **settings})


def test_quest_indexes_whole_pages_and_reads_the_page_being_written() -> None:
    given = layer(460)
    state = quest(update_tokens=20).layer(given.geometry)
    assert isinstance(state, PagedState)
    given.prefill(state, 0, 393)
    state.seal()
    assert state.indexed == (0, 384)
    for position in range(393, 460):
        found = given.step(state, position)
        assert state.indexed[1] % 16 == 0
        assert position + 1 - state.indexed[1] <= 32 + 1
    runs = state.selection.retrieved
    assert runs is not None
    steady = list(range(state.indexed[1], 460))
    for head in range(4):
        pages = [list(range(s, s + 16)) for s in runs.start_NK[head].tolist()]
        keep = torch.tensor([slot for page in pages for slot in page] + steady)
        weight_K = given.scores(459, 460)[head, keep].softmax(-1)
        right_D = weight_K @ given.v_GTD[head // 2, keep].double()
        torch.testing.assert_close(found.out[head], right_D.float())


@pytest.mark.parametrize("placement", ["cpu", "gpu", "wave_buffer"])
@pytest.mark.parametrize("share", ["query_head", "kv_head"])
def test_quest_reads_the_same_wherever_it_lies(placement: Any, share: Any) -> None:
    given = layer(1500, heads=4, size=16)
    states = [
        quest(share=share, placement=where, retrieval_budget=0.05).layer(given.geometry)
        for where in (placement, "cpu")
    ]
    for state in states:
        given.prefill(state, 0, 1350)
        state.seal()
    for position in range(1350, 1500):
        found, right = (given.step(state, position) for state in states)
        assert_close(found, right)


def test_quest_with_everything_is_full_attention() -> None:
    given = layer(400)
    state = quest(retrieval_budget=1.0, sink_tokens=3, local_tokens=9).layer(given.geometry)
    given.prefill(state, 0, 340)
    state.seal()
    for position in range(340, 400):
        assert_close(given.step(state, position), given.oracle(position))


def test_dense_layers_are_attended_in_full() -> None:
    given = layer(300)
    state = Quest(dense_layers=(0,)).layer(given.geometry)
    assert type(state) is StoredState
    given.prefill(state, 0, 299)
    state.seal()
    assert_close(given.step(state, 299), given.oracle(299))
    assert state.work().exact_tokens == Full().layer(given.geometry).store.frozen + 300
    assert isinstance(Quest(dense_layers=(1, 2)).layer(given.geometry), PagedState)
    assert not isinstance(SnapKV().layer(given.geometry), PagedState)
    assert isinstance(SnapKV().layer(given.geometry), SnapState)


def test_top_tokens_count_in_place_of_the_budget() -> None:
    given = layer(700)
    for settings, pages in (({"top_tokens": 100}, 7), ({}, 9), ({"layer_budgets": (0.1,)}, 5)):
        state = quest(**settings).layer(given.geometry)
        given.prefill(state, 0, 699)
        state.seal()
        given.step(state, 699)
        assert state.selection.retrieved is not None
        assert state.selection.retrieved.count_N.tolist() == [pages] * 4
    with pytest.raises(ValueError, match=r"method\.top_tokens = None"):
        Quest(dense_layers=(), retrieval_budget=None).layer(given.geometry)
