"""The composition with any index: what the index is given, and when."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.methods.cases import assert_close, layer

from longspan.indexes.flat import FlatIndex
from longspan.methods.faiss_flat import FaissFlat
from longspan.methods.plan import Amount, Plan
from longspan.methods.queries import QuerySample
from longspan.methods.retrieval import RetrievalState
from longspan.methods.retroinfer import RetroInfer

if TYPE_CHECKING:
    from longspan.indexes.base import Segment


class Learner(FlatIndex):
    """A flat index that keeps what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.built: list[Segment] = []
        self.appended: list[Segment] = []

    @property
    def wants_queries(self) -> bool:
        return True

    def build(self, segment: Segment) -> None:
        super().build(segment)
        self.built.append(segment)

    def append(self, segment: Segment) -> None:
        FlatIndex.build(self, segment)
        self.appended.append(segment)


def plan(**changes: object) -> Plan:
    base = {"sink_tokens": 4, "local_tokens": 16, "update_tokens": 50, "retrieve": Amount(share=1)}
    return Plan(**(base | changes))  # type: ignore[arg-type]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 90), min_size=1, max_size=8), st.integers(0, 30), st.integers(0, 20))
def test_the_sample_is_the_last_queries_and_an_even_share_of_the_rest(
    chunks: list[int], window: int, cap: int
) -> None:
    sample, total = QuerySample(window, cap), sum(chunks)
    position_HQD = torch.arange(total, dtype=torch.float32)[None, :, None].expand(2, -1, 3)
    at = 0
    for count in chunks:
        chunk = position_HQD[:, at : at + count].clone()
        sample.add(chunk)
        chunk.fill_(-1)  # what is kept must be a copy
        at += count
    found = sample.queries()
    if not window and not cap:
        assert found is None
        return
    assert found is not None
    kept = found[0, :, 0].int().tolist()
    last = list(range(max(0, total - window), total))
    early = kept[: len(kept) - len(last)]
    assert kept[len(early) :] == last
    assert all(position < total - len(last) for position in early)
    stride = early[1] - early[0] if len(early) > 1 else 1
    assert early == list(range(0, early[-1] + 1, stride)) if early else True
    assert len(early) <= cap
    if cap and total > window:
        assert stride & (stride - 1) == 0
        assert len(range(0, total, max(1, stride // 2))) > cap or stride == 1


def test_a_learning_index_gets_the_prompts_queries_once() -> None:
    data = layer(401)
    index = Learner()
    state = RetrievalState(data.geometry, plan(query_window=30, query_cap=10), index)
    data.prefill(state, 0, 120, 300)
    state.seal()
    (segment,) = index.built
    assert (segment.first_slot, segment.keys_GTD.shape[1]) == (4, 280)
    torch.testing.assert_close(segment.keys_GTD, data.k_GTD[:, 4:284])
    torch.testing.assert_close(segment.values_GTD, data.v_GTD[:, 4:284])
    queries_HSD = segment.queries_HSD
    assert queries_HSD is not None
    assert queries_HSD.shape[1] == 30 + 9, "every 32nd of 270, and the last 30"
    torch.testing.assert_close(queries_HSD[:, -30:], data.q_HTD[:, 270:300])
    torch.testing.assert_close(queries_HSD[:, :9], data.q_HTD[:, 0:270:32])
    for position in range(300, 401):
        assert_close(data.step(state, position), data.oracle(position))
    assert [s.first_slot for s in index.appended] == [284, 334]
    assert all(s.queries_HSD is None for s in index.appended)
    assert state.indexed == (4, 384)


def test_layers_take_turns_to_update() -> None:
    data = layer(240)
    grew: list[list[int]] = []
    for number in (0, 1, 2, 52):
        geometry = replace(data.geometry, layer=number)
        state = RetrievalState(geometry, plan(), FlatIndex())
        data.prefill(state, 0, 100)
        state.seal()
        sizes = [state.index.tokens]
        for position in range(100, 240):
            assert_close(data.step(state, position), data.oracle(position))
            sizes.append(state.index.tokens)
        grew.append([at for at in range(1, len(sizes)) if sizes[at] > sizes[at - 1]])
        assert set(sizes) == {80, 130, 180}
    assert grew == [[51, 101], [52, 102], [53, 103], [53, 103]]


def test_budgets_count_indexed_tokens() -> None:
    data = layer(220)
    for amount, right in (
        (Amount(share=0.1), 20),
        (Amount(tokens=7), 7),
        (Amount(tokens=999), 200),
    ):
        state = RetrievalState(data.geometry, plan(retrieve=amount), FlatIndex())
        data.prefill(state, 0, 220)
        state.seal()
        state.decode(data.q_HTD[:, -1])
        retrieved = state.selection.retrieved
        assert retrieved is not None
        assert (retrieved.count_N == right).all()
        assert state.work().exact_tokens == 20 + right


def test_what_lies_around_the_index_is_steady() -> None:
    data = layer(300)
    state = RetrievalState(data.geometry, plan(), FlatIndex())
    data.prefill(state, 0, 200)
    state.seal()
    for position in range(200, 240):
        data.step(state, position)
    assert state.selection.steady == ((0, 4), (184, 240))
    sinkless = RetrievalState(data.geometry, plan(sink_tokens=0, local_tokens=0), FlatIndex())
    data.prefill(sinkless, 0, 200)
    sinkless.seal()
    found = sinkless.decode(data.q_HTD[:, 199])
    assert sinkless.selection.steady == ()
    assert_close(found, data.oracle(199))


def test_forks_share_the_prompt_and_keep_their_own_index() -> None:
    data = layer(401)
    state = RetrievalState(data.geometry, plan(), FlatIndex())
    data.prefill(state, 0, 300)
    state.seal()
    twin = state.fork()
    for position in range(300, 401):
        data.step(twin, position)
    assert (state.index.tokens, twin.index.tokens) == (280, 380)
    assert state.store.parts[0].keys_GTD.data_ptr() == twin.store.parts[0].keys_GTD.data_ptr()
    with pytest.raises(RuntimeError):
        _ = state.selection


@pytest.mark.parametrize("method", [RetroInfer, FaissFlat], ids=lambda method: method.name)
def test_every_layer_may_have_a_budget_of_its_own(method: type[RetroInfer]) -> None:
    if method is FaissFlat:
        pytest.importorskip("faiss", reason="no faiss extra")
    data = layer(2300)
    more = {"tolerance": 0.0} if method is RetroInfer else {}  # so that budgets say it all
    built = method(layer_budgets=(0.01, 0.5), sink_tokens=4, local_tokens=64, **more)
    read = []
    for number in (0, 1):
        state = built.layer(replace(data.geometry, layer=number))
        data.prefill(state, 0, 2299)
        state.seal()
        data.step(state, 2299)
        read.append(state.work().exact_tokens)
    assert read[1] > 4 * read[0]
    with pytest.raises(ValueError, match=r"method\.layer_budgets has 2 entries.*a layer 2"):
        built.layer(replace(data.geometry, layer=2))


@pytest.mark.parametrize("method", [RetroInfer(), FaissFlat()])
@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_what_is_not_finite_is_named(method: RetroInfer | FaissFlat, wrong: float) -> None:
    given = layer(30)
    state = method.layer(given.geometry)
    state.store.append(given.k_GTD, given.v_GTD)
    q_HD = given.q_HTD[:, 0].clone()
    state.decode(q_HD)
    bad_HD = q_HD.clone()
    bad_HD[1, 2] = wrong
    with pytest.raises(ValueError, match="q holds NaN or infinity"):
        state.decode(bad_HD)
    bad_GTD = given.k_GTD[:, :1].clone()
    bad_GTD[0, 0, 3] = wrong * q_HD[0, 3].sign()
    state.append(bad_GTD[:, 0], given.v_GTD[:, 0])
    with pytest.raises(ValueError, match="a key that q reads holds NaN or infinity"):
        state.decode(q_HD)
