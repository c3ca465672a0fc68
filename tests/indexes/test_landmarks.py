"""ShadowKV's landmarks: outliers and the best chunks, found the slow way."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from longspan.indexes import landmarks
from longspan.indexes.base import Budget, Segment
from longspan.indexes.landmarks import LandmarkIndex
from longspan.indexes.paged_static import StaticPages
from longspan.types import LayerGeometry

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

CHUNK = 8


def keys(tokens: int, *, groups: int = 2, size: int = 24, seed: int = 0) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(groups, tokens, size, generator=rng)


def queries(heads: int = 6, size: int = 24) -> Tensor:
    return torch.randn(heads, size, generator=torch.Generator().manual_seed(9))


def built(keys_GTD: Tensor, *stops: int, outliers: float = 0.1) -> LandmarkIndex:
    index, first = LandmarkIndex(CHUNK, outliers), 0
    for stop in stops:
        index.build(Segment(keys_GTD[:, first:stop], keys_GTD[:, first:stop], 5 + first))
        first = stop
    return index


def slow_choice(q_HD: Tensor, keys_TD: Tensor, wanted: int, outliers: int, scale: float) -> Tensor:
    """Chunks of one KV head, whose query heads these are."""
    chunks = [chunk.double() for chunk in keys_TD.split(CHUNK)]
    marks_PD = torch.stack([chunk.mean(0) for chunk in chunks])
    alike = [
        min(float(key @ mark / key.norm() / mark.norm()) for key in chunk)
        for chunk, mark in zip(chunks, marks_PD, strict=True)
    ]
    always = sorted(range(len(chunks)), key=alike.__getitem__)[:outliers]
    share_HP = (scale * q_HD.double() @ marks_PD.T).softmax(-1)
    vote_P = share_HP.amax(0)
    vote_P[always] = -1
    return torch.tensor(always + vote_P.argsort(descending=True)[:wanted].tolist())


@pytest.mark.parametrize("block", [1024, 7])
def test_outliers_and_the_best_of_the_others_are_read(
    block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(landmarks, "BLOCK_PAGES", block)
    keys_GTD, q_HD = keys(320), queries()
    found = built(keys_GTD, 320).search(q_HD, Budget(50), 0.3)
    for group in range(2):
        right = slow_choice(q_HD[3 * group : 3 * group + 3], keys_GTD[group], 7, 4, 0.3)
        starts, right = found.retrieved.start_NK[group].tolist(), (right * CHUNK + 5).tolist()
        assert set(starts[:4]) == set(right[:4])
        assert starts[4:] == right[4:]
    assert found.retrieved.size_NK is not None
    assert (found.retrieved.size_NK == CHUNK).all()
    assert found.retrieved.count_N.tolist() == [11, 11]
    assert found.distances == 40
    assert found.bytes == 2 * 40 * 24 * 4


def test_no_chunk_is_read_twice_and_all_can_be() -> None:
    found = built(keys(160), 160).search(queries(), Budget(160), 1.0).retrieved
    for starts in found.start_NK.tolist():
        assert sorted(starts) == [5 + CHUNK * page for page in range(20)]


def test_shares_too_small_for_a_number_still_have_an_order() -> None:
    """Beside a score that is hundreds above the others, also in room for pages yet to come."""
    keys_GTD = torch.linspace(-1, 1, 20).repeat_interleave(CHUNK)[:, None].expand(2, -1, 24)
    q_HD, scale, right = torch.ones(6, 24), 400 / 48, [5 + CHUNK * page for page in range(10, 20)]
    index = built(keys_GTD, 160, outliers=0.0)
    for starts in index.search(q_HD, Budget(80), scale).retrieved.start_NK.tolist():
        assert starts == right[::-1]
    cpu = torch.device("cpu")
    geometry = LayerGeometry(
        layer=0,
        query_heads=6,
        kv_heads=2,
        head_size=24,
        scale=scale,
        dtype=torch.float32,
        device=cpu,
    )
    static = StaticPages([index], Budget(80), 5 + 400, geometry)
    static.refresh(0, Budget(80))
    page_NK, count_N, start_NP, _ = static.search(q_HD, scale)
    assert count_N.tolist() == [10, 10]
    assert start_NP.gather(1, page_NK.long()).sort().values.tolist() == [right] * 2


def test_what_is_generated_has_no_outliers_and_joins_the_index() -> None:
    keys_GTD = keys(240)
    index = built(keys_GTD, 160)
    twin = index.fork()
    twin.append(Segment(keys_GTD[:, 160:], keys_GTD[:, 160:], 165))
    assert (index.tokens, twin.tokens) == (160, 240)
    first, second = (each.search(queries(), Budget(1), 1.0).retrieved for each in (index, twin))
    outliers = [each.start_NK[:, :2].sort().values.tolist() for each in (first, second)]
    assert outliers[0] == outliers[1]
    only = LandmarkIndex(CHUNK)
    only.append(Segment(keys_GTD, keys_GTD, 0))
    assert only.search(queries(), Budget(9), 1.0).retrieved.count_N.tolist() == [2, 2]


def test_it_survives_a_file(tmp_path: Path) -> None:
    index = built(keys(160), 80, 160)
    index.save(tmp_path)
    found, right = (
        each.search(queries(), Budget(20), 1.0) for each in (LandmarkIndex.load(tmp_path), index)
    )
    assert found.retrieved.start_NK.tolist() == right.retrieved.start_NK.tolist()
    assert right.retrieved.count_N.tolist() == [1 + 1 + 3] * 2


def test_a_prompt_that_is_no_number_is_refused() -> None:
    poisoned = keys(32)
    poisoned[1, 7, 3] = float("inf")
    with pytest.raises(ValueError, match="NaN or infinity"):
        built(poisoned, 32)
