"""Exact nearest keys by blocks are those of the reference."""

from __future__ import annotations

import pytest
import torch

from longspan_kernels.attention_graph import blocks, reference


@pytest.mark.parametrize(("queries", "rows", "k"), [(1, 1, 3), (10, 33, 40), (25, 100, 7)])
def test_blocks_are_the_whole(
    monkeypatch: pytest.MonkeyPatch, queries: int, rows: int, k: int
) -> None:
    monkeypatch.setattr(blocks, "QUERIES", 4)
    monkeypatch.setattr(blocks, "KEYS", 9)
    q_SW, rows_NW = torch.randn(queries, 16), torch.randn(rows, 16)
    found = blocks.nearest(q_SW, rows_NW, k, torch.device("cpu"))
    assert torch.equal(found, reference.nearest(q_SW, rows_NW, k))
    assert found.dtype == torch.int32


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_device_finds_the_same() -> None:
    q_SW, rows_NW = torch.randn(100, 64), torch.randn(5000, 64)
    found = blocks.nearest(q_SW, rows_NW, 20, torch.device("cuda"))
    assert (found == reference.nearest(q_SW, rows_NW, 20)).float().mean() > 0.99
