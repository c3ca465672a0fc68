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

    from longspan.methods.frame import Reading


def state_of(given: Layer, method: RetroInfer, tokens: int) -> WaveStepState:
    state = sealed(given, method, tokens)
    assert isinstance(state, WaveStepState)
    return state


@pytest.mark.parametrize("vote", ["sum", "max", "mass"])
def test_one_call_is_the_parts(vote: Any) -> None:
    given = layer(2400, groups=2, heads=3)
    state = state_of(
        given, RetroInfer(retrieval_budget=0.03, vote=vote, update_tokens=400, tolerance=0.0), 1290
    )
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


def read_by(reading: Reading) -> list[set[tuple[int, int]]]:
    """The runs that each KV head read, and the clusters that stood for others."""
    runs, estimate = reading.selection.retrieved, reading.selection.estimated
    assert runs is not None
    assert runs.size_NK is not None
    rows = zip(runs.start_NK.tolist(), runs.size_NK.tolist(), runs.count_N.tolist(), strict=True)
    found = [set(zip(start[:count], size[:count], strict=True)) for start, size, count in rows]
    if estimate is not None and estimate.ids.count_N.any():
        ids = zip(estimate.ids.start_NK.tolist(), estimate.ids.count_N.tolist(), strict=True)
        found += [{(cluster, 1) for cluster in row[:count]} for row, count in ids]
    return found


@pytest.mark.parametrize(
    "options",
    [
        {"tolerance": 0.002},
        {"tolerance": 0.002, "estimation": "clusters"},
        {"tolerance": 0.002, "estimation_budget": 0.8, "vote": "max"},
        {"tolerance": 1e-9},
        {"tolerance": 1.0},
        {"tolerance": 0.01, "estimation_budget": 0.0},
        {"tolerance": 0.01, "retrieval_budget": 1.0},
        {"estimation_budget": 1.0, "retrieval_budget": 0.001, "tolerance": 0.0},
    ],
    ids=str,
)
@pytest.mark.parametrize("softcap", [None, 3.0])
def test_one_call_reads_by_mass_what_the_parts_do(
    options: dict[str, Any], softcap: float | None
) -> None:
    given = layer(2100, groups=2, heads=3, softcap=softcap)
    state = state_of(given, RetroInfer(**options, update_tokens=400), 1290)
    counts = set()
    for position in range(1290, 2100):
        state.append(given.k_GTD[:, position], given.v_GTD[:, position])
        if position % 61:
            continue
        q_HD = given.q_HTD[:, position]
        assert state.served()
        found, by_parts = state.fused(q_HD), RetrievalState.read(state, q_HD)
        assert read_by(found) == read_by(by_parts)
        assert_close(merge(found.partials), merge(by_parts.partials))
        assert found.distances == by_parts.distances
        one, other = found.selection.estimated, by_parts.selection.estimated
        if one is not None and other is not None:
            torch.testing.assert_close(one.bias_GC, other.bias_GC)
        assert found.selection.retrieved is not None
        counts |= set(found.selection.retrieved.count_N.tolist())
    assert len(state.store.parts) > 1
    if softcap is None and options.get("tolerance") == 0.002:  # what is read depends on the query
        assert len(counts) > 4


@pytest.mark.parametrize(
    "options",
    [
        {"vote": "sized"},
        {"vote": "unmet"},
        {"tail": "segment_mean"},
        {"tolerance": 0.01, "tail": "segment_mean"},
        {"tolerance": 0.01, "vote": "unmet"},
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
