"""What InfLLM reads, against a choice made from the softmax matrix written out."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.methods.cases import Layer, assert_close, layer
from torch import Tensor

from longspan.methods.infllm import InfLLM, InfLLMState
from longspan.methods.paged import PagedState
from longspan.studies.once import adopted

SMALL: dict[str, Any] = {
    "sink_tokens": 3, "local_tokens": 40, "update_tokens": 20, "page_tokens": 16,
    "retrieval_budget": 0.2, "representatives": 3,
}  # fmt: skip


class Slow:
    """What every token received from the next `window` queries, one query at a time."""

    def __init__(self, given: Layer, window: int) -> None:
        self.given, self.window = given, window
        self.sum_GT = torch.zeros(2, given.k_GTD.shape[1], dtype=torch.float64)

    def row(self, position: int, read_HT: Tensor | None = None) -> None:
        """One query attends everything up to itself, or what is read of it."""
        z_HT = self.given.scores(position, position + 1)
        if read_HT is not None:
            z_HT[~read_HT] = -torch.inf
        weight_GT = z_HT.softmax(-1).reshape(2, -1, position + 1).mean(1)
        near = slice(max(0, position - self.window), position)
        self.sum_GT[:, near] += weight_GT[:, near]

    def choice(self, q_HD: Tensor, first: int, stop: int, method: InfLLM, wanted: int) -> list[int]:
        """Where the chosen blocks of [first, stop) begin, best first."""
        page, keys_GTD, scores = method.page_tokens, self.given.k_GTD.double(), {}
        for start in range(first, stop, page):
            marks = []
            for group in range(2):
                sums_T = self.sum_GT[group, start : start + page]
                best_K = sums_T.argsort(descending=True)[: method.representatives]
                marks.append(keys_GTD[group, start + best_K].mean(0))
            mark_HD = torch.stack(marks).repeat_interleave(len(q_HD) // 2, 0)
            scores[start] = float((q_HD.double() * mark_HD).sum())
        return sorted(scores, key=lambda start: -scores[start])[:wanted]


def read_of(state: InfLLMState, heads: int, tokens: int) -> Tensor:
    """Bool [H, T]: what the last step attended."""
    read_HT = torch.zeros(heads, tokens, dtype=torch.bool)
    for first, stop in state.selection.steady:
        read_HT[:, first:stop] = True
    if (runs := state.selection.retrieved) is not None:
        assert runs.size_NK is not None
        for start, size in zip(runs.start_NK[0].tolist(), runs.size_NK[0].tolist(), strict=True):
            read_HT[:, start : start + size] = True
    return read_HT


def test_blocks_are_chosen_by_what_their_tokens_received() -> None:
    """Of the prompt, and of what is generated, by the weights of steps that read a part."""
    given = layer(520, heads=3, size=16)
    method = InfLLM(**SMALL)
    state, slow = method.layer(given.geometry), Slow(given, 40)
    assert isinstance(state, InfLLMState)
    given.prefill(state, 0, 1, 150, 390)
    state.seal()
    for position in range(390):
        slow.row(position)
    entered = set()
    for position in range(390, 520):
        found = given.step(state, position)
        first, stop = state.indexed
        entered.add(stop)
        assert (first, (stop - first) % 16) == (3, 0)
        assert 40 <= position + 1 - stop <= 40 + 32 + 1
        runs = state.selection.retrieved
        assert runs is not None
        wanted = -(-round(0.2 * (stop - first)) // 16)
        right = slow.choice(given.q_HTD[:, position], first, stop, method, wanted)
        assert runs.start_NK.tolist() == [right, right]
        read_HT = read_of(state, 6, position + 1)
        z_HT = given.scores(position, position + 1).masked_fill(~read_HT, -torch.inf)
        right_HD = (z_HT.softmax(-1)[:, None] @ given.v_GTD[:, : position + 1].double()
                    .repeat_interleave(3, 0))[:, 0]  # fmt: skip
        torch.testing.assert_close(found.out, right_HD.float(), atol=1e-5, rtol=1e-5)
        assert state.work().exact_tokens == int(read_HT[0].sum())
        slow.row(position, read_HT)
    assert len(entered) > 3
    assert min(entered) == 339
    torch.testing.assert_close(state.weighed.of(0, 520), slow.sum_GT.float())


def test_a_further_turn_enters_with_what_its_queries_gave() -> None:
    given = layer(420, size=16)
    method = InfLLM(**SMALL)
    state, slow = method.layer(given.geometry), Slow(given, 40)
    for first, stop, answered in ((0, 200, 205), (205, 400, 401)):
        given.prefill(state, first, stop)
        for position in range(first, stop):
            slow.row(position)
        state.seal()
        state.seal()
        for position in range(stop, answered):
            given.step(state, position)
            slow.row(position, read_of(state, 4, position + 1))  # type: ignore[arg-type]
    start, stop = state.indexed  # type: ignore[attr-defined]
    assert stop > 340
    wanted = -(-round(0.2 * (stop - start)) // 16)
    assert state.selection.retrieved is not None
    right = slow.choice(given.q_HTD[:, 400], start, stop, method, wanted)
    assert state.selection.retrieved.start_NK[0].tolist() == right


@pytest.mark.parametrize("placement", ["gpu", "wave_buffer"])
def test_it_reads_the_same_wherever_it_lies_and_however_it_is_cut(placement: Any) -> None:
    given = layer(700, heads=4, size=16)
    states = [
        InfLLM(**SMALL, placement=where).layer(given.geometry) for where in (placement, "cpu")
    ]
    for state, bounds in zip(states, ((0, 333, 334, 600), (0, 600)), strict=True):
        given.prefill(state, *bounds)
        state.seal()
    for position in range(600, 700):
        found, right = (given.step(state, position) for state in states)
        assert_close(found, right)


def test_a_prompt_read_elsewhere_needs_all_its_queries() -> None:
    given, method = layer(440), InfLLM(**SMALL)
    prompt = given.k_GTD[:, :400], given.v_GTD[:, :400]
    found = adopted(method, given.geometry, prompt, given.q_HTD[:, :400])
    right = method.layer(given.geometry)
    given.prefill(right, 0, 400)
    right.seal()
    for position in range(400, 440):
        assert_close(given.step(found, position), given.step(right, position))
    with pytest.raises(ValueError, match="method = infllm: it sums the attention of all queries"):
        adopted(method, given.geometry, prompt, given.q_HTD[:, 300:400])


def test_forks_weigh_alone() -> None:
    given, other = layer(520, size=16), layer(520, size=16, seed=3)
    method = InfLLM(**SMALL)
    state = method.layer(given.geometry)
    given.prefill(state, 0, 400)
    state.seal()
    twin, kept = state.fork(), state.fork()
    assert isinstance(state, InfLLMState)
    before_GT = state.weighed.of(0, 400).clone()
    for position in range(400, 500):
        other.step(twin, position)
    assert torch.equal(state.weighed.of(0, 400), before_GT)
    for position in range(400, 520):
        assert_close(given.step(state, position), given.step(kept, position))


def test_a_short_prompt_is_indexed_when_it_has_grown() -> None:
    given = layer(200)
    state = InfLLM(**SMALL).layer(given.geometry)
    given.prefill(state, 0, 12)
    state.seal()
    for position in range(12, 200):
        found = given.step(state, position)
        assert state.indexed[1] > 3 or state.work().exact_tokens == position + 1  # type: ignore[attr-defined]
    assert state.indexed[1] > 100  # type: ignore[attr-defined]
    assert found.out.isfinite().all()


def test_settings_are_checked_and_reach_their_layer() -> None:
    given = layer(1)
    assert not isinstance(InfLLM(dense_layers=(0,)).layer(given.geometry), PagedState)
    for wrong in ({"representatives": 129}, {"local_tokens": 0}, {"page_tokens": 3}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            InfLLM(**wrong)  # type: ignore[arg-type]
