from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor

from longspan.indexes.attention_graph import AttentionGraphIndex, WalkOptions
from longspan.indexes.base import Budget, Segment
from longspan_kernels.attention_graph import GraphOptions

if TYPE_CHECKING:
    from pathlib import Path

SMALL = GraphOptions(degree=12, list_tokens=40, candidates=48, neighbours=8, cluster_tokens=64)
GROUPS, HEADS, SIZE = 2, 3, 24


def rows(tokens: int, groups: int, seed: int, *, queries: bool = False) -> Tensor:
    """Keys that hardly spread where queries do, and the other way round."""
    rng = torch.Generator().manual_seed(seed)
    row_GTD = torch.randn(groups, tokens, SIZE, generator=rng)
    half = SIZE // 2
    if queries:
        row_GTD[..., :half] *= 3 / torch.arange(1.0, half + 1)
        row_GTD[..., half:] *= 0.02
    else:
        row_GTD[..., :half] *= 0.1
    return row_GTD


def segment(tokens: int, first: int = 0, seed: int = 0, *, queries: bool = True) -> Segment:
    keys_GTD = rows(tokens, GROUPS, seed)
    sample_HSD = rows(200, GROUPS * HEADS, 90, queries=True) if queries else None
    return Segment(keys_GTD, keys_GTD, first, sample_HSD)


def recall(index: AttentionGraphIndex, keys_GTD: Tensor, first: int, k: int = 20) -> float:
    hits = 0
    for seed in range(8):
        q_HD = rows(1, GROUPS * HEADS, 200 + seed, queries=True)[:, 0]
        found = index.search(q_HD, Budget(k), 1.0)
        score_HT = (q_HD.reshape(GROUPS, HEADS, SIZE) @ keys_GTD.mT).flatten(0, 1)
        for head, right in enumerate(score_HT.topk(k).indices + first):
            row = found.retrieved.start_NK[head, : found.retrieved.count_N[head]]
            hits += len(set(row.tolist()) & set(right.tolist()))
    return hits / (8 * GROUPS * HEADS * k)


@pytest.mark.parametrize("graph_per", ["kv_head", "query_head"])
def test_recall_with_prompt_and_generated_tokens(graph_per: str) -> None:
    index = AttentionGraphIndex(SMALL, WalkOptions(graph_per=graph_per, beam=100))  # type: ignore[arg-type]
    prompt = segment(1500, first=4)
    assert index.build(prompt) is None
    assert recall(index, prompt.keys_GTD, 4) > 0.97
    later = [segment(n, 4 + first, seed=s, queries=False) for n, first, s in
             ((100, 1500, 1), (1, 1600, 2), (77, 1601, 3))]  # fmt: skip
    for one in later:
        index.append(one)
    keys_GTD = torch.cat([prompt.keys_GTD, *(one.keys_GTD for one in later)], dim=1)
    assert index.tokens == 1678
    assert recall(index, keys_GTD, 4) > 0.96
    assert index.nbytes == sum(graph.nbytes for graph in index._graphs)
    assert len(index._graphs) == (GROUPS if graph_per == "kv_head" else GROUPS * HEADS)


def test_work_falls_when_steps_resemble_one_another() -> None:
    index = AttentionGraphIndex(SMALL, WalkOptions(beam=64))
    index.build(segment(3000))
    q_HD = rows(1, GROUPS * HEADS, 7, queries=True)[:, 0]
    cold = index.search(q_HD, Budget(10), 1.0)
    warm = index.search(q_HD * 1.01, Budget(10), 1.0)
    assert 64 <= warm.distances <= cold.distances + 32
    assert 0 < cold.distances < 3000
    assert cold.bytes > 0
    assert 0 < cold.hops < cold.distances
    wide = index.search(q_HD, Budget(10, effort=300), 1.0)
    assert wide.distances > 1.5 * warm.distances


def test_forks_share_until_they_grow() -> None:
    index = AttentionGraphIndex(SMALL, WalkOptions())
    index.build(segment(500))
    twin = index.fork()
    assert twin._graphs[0] is index._graphs[0]
    twin.append(segment(50, 500, seed=5, queries=False))
    assert (index.tokens, twin.tokens) == (500, 550)
    index.append(segment(20, 500, seed=6, queries=False))
    assert (index.tokens, twin.tokens) == (520, 550)
    assert twin._graphs[0] is not index._graphs[0]


def test_without_queries_neighbours_are_linked() -> None:
    index = AttentionGraphIndex(SMALL, WalkOptions(beam=150))
    given = segment(600, queries=False)
    index.build(given)
    assert recall(index, given.keys_GTD, 0) > 0.8


def test_saved_indexes_answer_alike(tmp_path: Path) -> None:
    index = AttentionGraphIndex(SMALL, WalkOptions(beam=80, seeds=0))
    given = segment(700, first=3)
    index.build(given)
    q_HD = rows(1, GROUPS * HEADS, 7, queries=True)[:, 0]
    right = index.search(q_HD, Budget(15), 1.0)
    index.save(tmp_path)
    again = AttentionGraphIndex.load(tmp_path, given.keys_GTD)
    found = again.search(q_HD, Budget(15), 1.0)
    assert torch.equal(found.retrieved.start_NK, right.retrieved.start_NK)
    assert found.distances == right.distances
    again.append(segment(10, 703, seed=4, queries=False))
    bare = AttentionGraphIndex.load(tmp_path)
    bare.append(segment(10, 703, seed=4, queries=False))
    assert recall(bare, torch.cat([given.keys_GTD, rows(10, GROUPS, 4)], 1), 3, k=15) > 0.8
    with pytest.raises(ValueError, match="keys has 10 tokens"):
        AttentionGraphIndex.load(tmp_path, given.keys_GTD[:, :10])
    facts = (tmp_path / "index.json").read_text()
    (tmp_path / "index.json").write_text(facts.replace('"version": "1"', '"version": "7"'))
    with pytest.raises(ValueError, match="version '7'"):
        AttentionGraphIndex.load(tmp_path)
    (tmp_path / "index.json").write_text(facts[:20])
    with pytest.raises(ValueError, match=r"index\.json is no index"):
        AttentionGraphIndex.load(tmp_path)


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    index = AttentionGraphIndex(SMALL, WalkOptions())
    with pytest.raises(ValueError, match="nothing is indexed"):
        index.save(tmp_path)
    index.build(segment(100))
    q_HD = torch.ones(GROUPS * HEADS, SIZE)
    for wrong in (0, 101):
        with pytest.raises(ValueError, match=f"retrieve_tokens is {wrong}"):
            index.search(q_HD, Budget(wrong), 1.0)
    with pytest.raises(ValueError, match="begins at slot 99"):
        index.append(segment(10, 99))
    with pytest.raises(ValueError, match="q holds NaN"):
        index.search(q_HD * float("nan"), Budget(5), 1.0)
