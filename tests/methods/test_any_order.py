"""Chunks, seals, steps and forks in any order: at full budget every decode is full attention."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.methods.cases import assert_close, layer

from longspan.methods.h2o import H2O
from longspan.methods.infllm import InfLLM
from longspan.methods.retroinfer import RetroInfer
from longspan.types import Partial

if TYPE_CHECKING:
    from collections.abc import Iterator

    from longspan.methods.base import LayerState, Method

DATA = layer(600, groups=2, heads=2)
EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("chunk"), st.integers(1, 60)),
        st.tuples(st.just("steps"), st.integers(1, 25)),
        st.tuples(st.just("seal"), st.just(0)),
        st.tuples(st.just("fork"), st.just(0)),
    ),
    min_size=1,
    max_size=14,
)


@settings(max_examples=40, deadline=None)
@given(
    EVENTS,
    st.integers(0, 6),
    st.integers(0, 12),
    st.integers(1, 40),
    st.integers(1, 9),
    st.sampled_from([("segment", 0.0), ("segment", 0.1), ("global", 0.0)]),
)
def test_every_decode_is_full_attention(
    events: list[tuple[str, int]],
    sink: int,
    local: int,
    update: int,
    per_cluster: int,
    cut: tuple[str, float],
) -> None:
    method = RetroInfer(
        sink_tokens=sink,
        local_tokens=local,
        update_tokens=update,
        tokens_per_cluster=per_cluster,
        segment_tokens=30,
        kmeans_rounds=2,
        retrieval_budget=1.0,
        final_assignment=cut[0],  # type: ignore[arg-type]
        outlier_budget=cut[1],
    )
    for state, position in states(method, events, update):
        first, end = state.indexed  # type: ignore[attr-defined]
        assert end - first <= max(0, position - sink - local)


@settings(max_examples=30, deadline=None)
@given(
    EVENTS,
    st.sampled_from([H2O(budget=1.0), H2O(kept_tokens=600, score="mean")])
    | st.builds(
        InfLLM,
        retrieval_budget=st.just(1.0),
        sink_tokens=st.integers(0, 6),
        local_tokens=st.integers(1, 12),
        page_tokens=st.integers(2, 9),
        update_tokens=st.integers(1, 20),
        representatives=st.integers(1, 2),
    ),
)
def test_so_it_is_where_received_attention_is_summed(
    events: list[tuple[str, int]], method: Method
) -> None:
    for _ in states(method, events, 25):
        pass


def states(
    method: Method, events: list[tuple[str, int]], thrown: int
) -> Iterator[tuple[LayerState, int]]:
    """After each event the state, and how many tokens it holds. A fork that is `thrown` away takes
    in as many.
    """
    state: LayerState = method.layer(DATA.geometry)
    position = 0
    for name, count in events:
        stop = min(position + count, 600)
        if name == "chunk" and stop > position:
            (chunk,) = DATA.prefill(state, position, stop)
            assert_close(Partial(chunk.out[:, -1], chunk.lse[:, -1]), DATA.oracle(stop - 1))
            position = stop
        elif name == "steps":
            for at in range(position, stop):
                assert_close(DATA.step(state, at), DATA.oracle(at))
            position = stop
        elif name == "seal":
            state.seal()
        elif name == "fork":
            left, state = state, state.fork()
            if position:
                query_HD = DATA.q_HTD[:, position - 1]
                before = left.decode(query_HD)
                noise = torch.randn_like(DATA.k_GTD[:, 0])
                throwaway = state.fork()
                for _ in range(thrown + 1):
                    throwaway.append(noise, noise)
                assert_close(state.decode(query_HD), before, 1e-6)
        assert len(state.store) == position
        yield state, position
