from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from longspan.indexes.base import Budget, Segment
from longspan.indexes.flat import FlatIndex

if TYPE_CHECKING:
    from pathlib import Path


def test_flat_finds_the_exact_best_across_segments(tmp_path: Path) -> None:
    torch.manual_seed(0)
    keys, q_HD = torch.randn(2, 120, 8), torch.randn(6, 8)
    index = FlatIndex()
    index.build(Segment(keys[:, :100], keys[:, :100], 4))
    twin = index.fork()
    twin.append(Segment(keys[:, 100:], keys[:, 100:], 104))
    assert (index.tokens, twin.tokens, twin.nbytes) == (100, 120, 0)
    found = twin.search(q_HD, Budget(retrieve_tokens=9), 0.1)
    for head in range(6):
        right = (keys[head // 3] @ q_HD[head]).topk(9).indices + 4
        assert found.retrieved.start_NK[head].tolist() == right.tolist()
    assert found.distances == 120
    with pytest.raises(ValueError, match="retrieve_tokens is 121"):
        twin.search(q_HD, Budget(retrieve_tokens=121), 0.1)
    with pytest.raises(ValueError, match="should begin at 124"):
        twin.append(Segment(keys[:, :1], keys[:, :1], 130))
    with pytest.raises(ValueError, match="nothing is indexed"):
        FlatIndex().save(tmp_path)
    twin.save(tmp_path)
    again = FlatIndex.load(tmp_path, keys).search(q_HD, Budget(retrieve_tokens=9), 0.1)
    assert torch.equal(again.retrieved.start_NK, found.retrieved.start_NK)
    with pytest.raises(ValueError, match="keys has 100 tokens; it should have 120"):
        FlatIndex.load(tmp_path, keys[:, :100])
