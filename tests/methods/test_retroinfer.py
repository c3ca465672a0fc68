"""The properties that the wave index's arithmetic and its updates must have."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch
from tests.methods.cases import assert_close, layer, sealed

from longspan.indexes.base import Budget, Segment
from longspan.indexes.wave import WaveIndex
from longspan.methods.retroinfer import RetroInfer
from longspan.methods.retroinfer_paper import RetroInferPaper
from longspan.types import Partial

if TYPE_CHECKING:
    from longspan.methods.retrieval import RetrievalState


def meta_of(state: RetrievalState) -> dict[str, torch.Tensor]:
    assert isinstance(state.index, WaveIndex)
    return state.index.meta.tensors


def test_clusters_of_identical_keys_are_estimated_exactly() -> None:
    given = layer(1200)
    # 16 keys of one length far from each other, so that no cluster mixes two of them
    axes_KD = 3 * torch.cat([torch.eye(8), -torch.eye(8)])
    k_GTD = axes_KD[torch.arange(1200) // 16 % 16].expand(2, -1, -1).clone()
    given = replace(given, k_GTD=k_GTD)
    method = RetroInfer(min_clusters=1, estimation_budget=1.0)
    state = sealed(given, method, 1199)
    found = given.step(state, 1199)
    assert state.work().estimated_tokens > 900
    assert_close(found, given.oracle(1199))


def test_the_estimated_mass_never_exceeds_the_true_mass() -> None:
    given = layer(1300)
    method = RetroInfer(min_clusters=1, estimation_budget=1.0, estimation="clusters", tolerance=0.0)
    state = sealed(given, method, 1290)
    short = 0.0
    for position in range(1290, 1300):
        found, right = given.step(state, position), given.oracle(position)
        assert (found.lse <= right.lse + 1e-5).all()
        short += float((right.lse - found.lse).sum())
    assert short > 0.1, "a bound that is always tight would test nothing"


def test_the_zones_merge_into_one_softmax() -> None:
    given = layer(1300, groups=2, heads=3)
    method = RetroInfer(retrieval_budget=0.05, estimation_budget=0.3)
    state = sealed(given, method, 1299)
    found = given.step(state, 1299)
    selection, meta = state.selection, meta_of(state)
    retrieved, estimated = selection.retrieved, selection.estimated
    assert retrieved is not None
    assert estimated is not None
    assert retrieved.size_NK is not None
    keys_GTD = torch.cat([part.keys_GTD for part in state.store.parts], dim=1)
    values_GTD = torch.cat([part.values_GTD for part in state.store.parts], dim=1)
    for head in range(6):
        group = head // 3
        slots = [slot for span in selection.steady for slot in range(*span)]
        runs = zip(
            retrieved.start_NK[group].tolist(), retrieved.size_NK[group].tolist(), strict=True
        )
        slots += [slot for start, size in list(runs)[: int(retrieved.count_N[group])]
                  for slot in range(start, start + size)]  # fmt: skip
        assert len(slots) == len(set(slots))
        ids = estimated.ids.start_NK[group, : int(estimated.ids.count_N[group])].long()
        q_D, scale = given.q_HTD[head, 1299], given.geometry.scale
        z_exact = keys_GTD[group, slots] @ q_D * scale
        z_cluster = meta["centroids_GCD"][group, ids] @ q_D * scale
        z = torch.cat([z_exact, z_cluster + estimated.bias_GC[group, ids]])
        values = torch.cat([values_GTD[group, slots], meta["values_GCD"][group, ids]])
        torch.testing.assert_close(found.lse[head], z.logsumexp(0))
        torch.testing.assert_close(found.out[head], z.softmax(0) @ values)


def test_budgets_become_the_cluster_counts_of_the_paper() -> None:
    given = layer(8192 + 68, groups=1, heads=1)
    state = sealed(given, RetroInferPaper(kmeans_rounds=2), 8192 + 68)
    state.decode(given.q_HTD[:, -1])
    selection = state.selection
    assert meta_of(state)["size_GC"].shape == (1, 512)
    assert selection.retrieved is not None
    assert selection.estimated is not None
    assert int(selection.retrieved.count_N) == 9
    assert int(selection.estimated.ids.count_N) == 119


def test_short_inputs_are_attended_in_full_until_enough_tokens_wait() -> None:
    given = layer(1500)
    state = sealed(given, RetroInfer(), 4 + 64 + 1023)
    for position in range(1091, 1500):
        found = given.step(state, position)
        # the index appears with the token after the one that makes 1024 wait
        if position < 4 + 64 + 1024:
            assert state.index.tokens == 0
            assert_close(found, given.oracle(position))
        else:
            assert state.index.tokens == 1024


def test_updates_lose_no_token_and_equal_an_index_built_piece_by_piece() -> None:
    given = layer(1500 + 2200)
    method = RetroInfer(estimation_budget=1.0)
    state = sealed(given, method, 1500)
    before = meta_of(state)["centroids_GCD"].clone()
    for position in range(1500, 3700):
        given.step(state, position)
    assert state.index.tokens == 1500 - 68 + 2048
    seen_GT = torch.cat(
        [
            torch.arange(p.first, p.stop).expand(2, -1)
            if p.positions_GT is None
            else p.positions_GT
            for p in state.store.parts
        ],
        dim=1,
    )
    assert [part.stop - part.first for part in state.store.parts] == [3484, 216]
    torch.testing.assert_close(seen_GT.sort(1).values.long(), torch.arange(3700).expand(2, -1))
    for part in state.store.parts:
        if part.positions_GT is not None:
            at_GTD = part.positions_GT.long()[..., None].expand_as(part.keys_GTD)
            torch.testing.assert_close(part.keys_GTD, given.k_GTD.gather(1, at_GTD))
            torch.testing.assert_close(part.values_GTD, given.v_GTD.gather(1, at_GTD))
    pieces = WaveIndex(state.index.options)  # type: ignore[attr-defined]
    for first, stop in ((4, 1436), (1436, 2460), (2460, 3484)):
        pieces.build(Segment(given.k_GTD[:, first:stop], given.v_GTD[:, first:stop], first))
    for name, tensor in meta_of(state).items():
        torch.testing.assert_close(tensor, getattr(pieces.meta, name))
    torch.testing.assert_close(meta_of(state)["centroids_GCD"][:, : before.shape[1]], before)


def test_a_second_seal_indexes_the_second_turn() -> None:
    given = layer(4000)
    state = sealed(given, RetroInfer(), 1500)
    for position in range(1500, 1510):
        given.step(state, position)
    given.prefill(state, 1510, 1600)
    state.seal()
    assert state.index.tokens == 1432, "too few tokens wait"
    given.prefill(state, 1600, 3000)
    state.seal()
    assert state.index.tokens == 3000 - 68
    full = RetroInfer(retrieval_budget=1.0).layer(given.geometry)
    given.prefill(full, 0, 1500)
    full.seal()
    given.prefill(full, 1500, 3999)
    full.seal()
    assert_close(given.step(full, 3999), given.oracle(3999))


def test_a_query_without_a_number_is_refused() -> None:
    given = layer(1300)
    state = sealed(given, RetroInfer(), 1300)
    with pytest.raises(ValueError, match="NaN"):
        state.decode(given.q_HTD[:, -1] * float("nan"))
    empty = WaveIndex(state.index.options)  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="nothing is indexed"):
        empty.search(given.q_HTD[:, -1], Budget(retrieve_tokens=5), 1.0)


def test_the_partial_is_what_the_types_promise() -> None:
    given = layer(1300, dtype=torch.bfloat16)
    state = sealed(given, RetroInfer(), 1299)
    found = given.step(state, 1299)
    assert isinstance(found, Partial)
    assert found.out.dtype == torch.float32
    half, whole = given.geometry, {}
    for summaries in ("model", "float32"):
        state = sealed(given, RetroInfer(summaries=summaries), 1299)  # type: ignore[arg-type]
        whole[summaries] = (given.step(state, 1299), meta_of(state))
    assert whole["model"][1]["centroids_GCD"].dtype == half.dtype
    assert whole["float32"][1]["centroids_GCD"].dtype == torch.float32
    assert whole["model"][1]["spread_GC"].dtype == torch.float32
    assert_close(whole["model"][0], whole["float32"][0], 2e-2)
