"""Quest's pages: the bound holds, the best pages are found, stretches are one index."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from longspan.indexes.base import Budget, Segment
from longspan.indexes.pages import PageIndex

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from longspan_kernels.types import Sharing

PAGE = 16


def keys(tokens: int, *, groups: int = 2, size: int = 24, seed: int = 0) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(groups, tokens, size, generator=rng)


def queries(heads: int = 6, size: int = 24) -> Tensor:
    return torch.randn(heads, size, generator=torch.Generator().manual_seed(9))


def built(keys_GTD: Tensor, *stops: int, share: Sharing = "query_head") -> PageIndex:
    index, first = PageIndex(PAGE, share), 0
    for stop in stops:
        index.build(Segment(keys_GTD[:, first:stop], keys_GTD[:, first:stop], 5 + first))
        first = stop
    return index


def slow_bounds(q_HD: Tensor, keys_GTD: Tensor) -> Tensor:
    """float64 [H, P], page by page and coordinate by coordinate."""
    heads, groups = len(q_HD), len(keys_GTD)
    rows = []
    for head in range(heads):
        keys_TD, q_D = keys_GTD[head * groups // heads].double(), q_HD[head].double()
        pages = keys_TD.split(PAGE)
        rows.append([float((q_D * page).amax(0).sum()) for page in pages])
    return torch.tensor(rows, dtype=torch.float64)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_no_key_of_a_page_exceeds_its_bound(dtype: torch.dtype) -> None:
    keys_GTD, q_HD = keys(320).to(dtype), queries().to(dtype)
    bound_HP = built(keys_GTD, 320).scores(q_HD, 1.0)
    tolerance = 1e-4
    right_HP = slow_bounds(q_HD, keys_GTD).float()
    torch.testing.assert_close(bound_HP, right_HP, atol=tolerance, rtol=tolerance)
    score_GRT = q_HD.float().reshape(2, 3, -1) @ keys_GTD.float().mT
    most_HP = score_GRT.reshape(6, 20, PAGE).amax(-1)
    assert (most_HP <= bound_HP + tolerance).all()
    assert (most_HP < bound_HP - tolerance).any()


@pytest.mark.parametrize("share", ["query_head", "kv_head"])
def test_the_pages_of_the_largest_bounds_are_read(share: Sharing) -> None:
    keys_GTD, q_HD = keys(320), queries()
    found = built(keys_GTD, 320, share=share).search(q_HD, Budget(70), 0.3)
    runs, bound_NP = found.retrieved, slow_bounds(q_HD, keys_GTD)
    if share == "kv_head":
        bound_NP = bound_NP.reshape(2, 3, -1).amax(1)
    right = bound_NP.topk(5).indices * PAGE + 5
    assert runs.start_NK.tolist() == right.tolist()
    assert runs.size_NK is not None
    assert (runs.size_NK == PAGE).all()
    assert runs.count_N.tolist() == [5] * len(right)
    assert found.distances == 2 * 20
    assert found.bytes == 2 * 20 * 2 * 24 * 4


def test_three_pages_are_read_at_least_and_all_at_most() -> None:
    index = built(keys(320), 320)
    assert index.search(queries(), Budget(1), 1.0).retrieved.count_N.tolist() == [3] * 6
    assert index.search(queries(), Budget(320), 1.0).retrieved.count_N.tolist() == [20] * 6
    assert (
        built(keys(16), 16).search(queries(), Budget(1), 1.0).retrieved.start_NK.tolist()
        == [[5]] * 6
    )


def test_stretches_are_one_index() -> None:
    keys_GTD, q_HD = keys(480), queries()
    right = built(keys_GTD, 480).search(q_HD, Budget(64), 1.0)
    grown = built(keys_GTD, 256, 272, 288, 304, 480)
    found = grown.search(q_HD, Budget(64), 1.0)
    assert found.retrieved.start_NK.tolist() == right.retrieved.start_NK.tolist()
    assert grown.tokens == 480
    assert grown.nbytes == 2 * 30 * 2 * 24 * 4


def test_a_fork_grows_alone() -> None:
    keys_GTD = keys(64)
    index = built(keys_GTD, 32)
    twin = index.fork()
    twin.append(Segment(keys_GTD[:, 32:64], keys_GTD[:, 32:64], 37))
    assert (index.tokens, twin.tokens) == (32, 64)


def test_it_survives_a_file(tmp_path: Path) -> None:
    index = built(keys(64), 48, 64, share="kv_head")
    index.save(tmp_path)
    found, right = (
        each.search(queries(), Budget(20), 1.0) for each in (PageIndex.load(tmp_path), index)
    )
    assert found.retrieved.start_NK.tolist() == right.retrieved.start_NK.tolist()
    (tmp_path / "index.json").write_text("{")
    with pytest.raises(ValueError, match="is no index"):
        PageIndex.load(tmp_path)


def test_what_does_not_fit_is_refused() -> None:
    index = PageIndex(PAGE)
    with pytest.raises(ValueError, match="nothing is indexed"):
        index.save(None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="keys has 20 tokens"):
        index.build(Segment(keys(20), keys(20), 0))
    poisoned = keys(32)
    poisoned[1, 7, 3] = float("nan")
    with pytest.raises(ValueError, match="NaN or infinity"):
        index.build(Segment(poisoned, poisoned, 0))
    index.build(Segment(keys(32), keys(32), 0))
    with pytest.raises(ValueError, match="segment begins at slot 40"):
        index.build(Segment(keys(32), keys(32), 40))
    for wrong in (0, 33):
        with pytest.raises(ValueError, match=f"retrieve_tokens is {wrong}"):
            index.search(queries(), Budget(wrong), 1.0)
