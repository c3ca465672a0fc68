from __future__ import annotations

from pathlib import Path

import pytest
import torch

from longspan.indexes.base import Budget, Segment
from longspan.indexes.flat import FlatIndex


def test_flat_finds_the_exact_best_across_segments() -> None:
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
    with pytest.raises(ValueError, match="FlatIndex cannot be saved"):
        twin.save(Path("folder"))
