"""PQCache in its frame: budgets, generated tokens, every placement."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from tests.methods.cases import assert_close, layer

from longspan.indexes.base import Budget, Segment
from longspan.methods.pqcache import PQCache

SMALL: dict[str, Any] = {"sink_tokens": 4, "local_tokens": 16, "update_tokens": 40}


def test_generated_tokens_are_written_with_the_codebook_of_the_prompt() -> None:
    given = layer(520, size=16)
    method = PQCache(**SMALL, bits=4)
    state = method.layer(given.geometry)
    given.prefill(state, 0, 243)
    state.seal()
    for position in range(243, 520):
        given.step(state, position)
    fresh = method.index(given.geometry)
    stops = [4, 243 - 16, *range(243 - 16 + 40, 520 - 16, 40)]
    for number, (first, stop) in enumerate(itertools.pairwise(stops)):
        stretch = Segment(given.k_GTD[:, first:stop], given.v_GTD[:, first:stop], first)
        (fresh.append if number else fresh.build)(stretch)
    assert fresh.tokens == state.index.tokens == stops[-1] - 4
    for position in range(0, 520, 40):
        found, right = (
            index.search(given.q_HTD[:, position], Budget(12), given.geometry.scale)
            for index in (state.index, fresh)
        )
        assert torch.equal(found.retrieved.start_NK, right.retrieved.start_NK)
        assert found.distances == 16


@pytest.mark.parametrize("placement", ["cpu", "gpu", "wave_buffer"])
@pytest.mark.parametrize("share", ["kv_head", "query_head"])
def test_the_best_tokens_are_read_wherever_they_are(share: str, placement: Any) -> None:
    given = layer(600, size=16, heads=3)
    options: dict[str, Any] = {"share": share, "parts": 4, "top_tokens": 60}
    state, same = (
        PQCache(**SMALL, retrieval_budget=None, **options, **more).layer(given.geometry)
        for more in ({"placement": placement}, {})
    )
    for each in (state, same):
        given.prefill(each, 0, 550)
        each.seal()
    kept = []
    for position in range(550, 580):
        assert_close(given.step(state, position), given.step(same, position))
        runs = state.selection.retrieved
        assert runs is not None
        assert runs.count_N.tolist() == [60] * (2 if share == "kv_head" else 6)
        start, stop = 4, state.selection.steady[-1][0]
        weight_NT = given.scores(position, stop)[:, start:].softmax(-1)
        if share == "kv_head":
            weight_NT = weight_NT.reshape(2, 3, -1).sum(1)
        for weight_T, slot_K in zip(weight_NT, runs.start_NK, strict=True):
            best_K = weight_T.topk(20).indices + start
            kept.append(len(set(best_K.tolist()) & set(slot_K.tolist())) / 20)
        assert state.work().exact_tokens == 60 + 4 + position + 1 - stop
    assert sum(kept) / len(kept) > 0.9


def test_one_token_is_read_at_least() -> None:
    given = layer(120)
    state = PQCache(sink_tokens=4, local_tokens=8, update_tokens=1).layer(given.geometry)
    given.prefill(state, 0, 15)
    state.seal()
    for position in range(15, 120):
        assert given.step(state, position).out.isfinite().all()
    # each token is written as it leaves the window
    assert state.index.tokens == 120 - 1 - 4 - 8
    assert state.work().exact_tokens == 4 + 8 + 1 + 2


def test_a_head_that_cannot_be_cut_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match=r"method\.parts is 3; it should divide the head size, 8"):
        PQCache(parts=3).layer(layer(3).geometry)
    for field, wrong in (("parts", 0), ("bits", 9), ("bits", 0), ("share", "layer")):
        with pytest.raises(ValueError, match=field):
            PQCache(**{field: wrong})  # type: ignore[arg-type]
