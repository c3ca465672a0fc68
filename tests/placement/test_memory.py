"""Attention over a store of several parts is attention over its tokens."""

from __future__ import annotations

import pytest
import torch

from longspan.placement.base import place
from longspan.placement.memory import pieces
from longspan.placement.store import KVStore
from longspan.types import LayerGeometry, Runs
from longspan_kernels.merge import merge


def geometry(device: str = "cpu") -> LayerGeometry:
    return LayerGeometry(0, 4, 2, 8, 0.3, torch.float32, torch.device(device), softcap=3.0)


def attend(q_HD: torch.Tensor, k_GTD: torch.Tensor, v_GTD: torch.Tensor) -> torch.Tensor:
    """Plain attention of 4 heads over 2 KV heads."""
    z = 3.0 * torch.tanh(q_HD.reshape(2, 2, 8) @ k_GTD.mT * 0.3 / 3.0)
    return (z.softmax(-1) @ v_GTD).reshape(4, 8)


def test_ranges_and_runs_cross_parts() -> None:
    torch.manual_seed(0)
    k, v, q = torch.randn(2, 90, 8), torch.randn(2, 90, 8), torch.randn(4, 8)
    placed = place("cpu", geometry())
    placed.store.append(k, v)
    placed.store.freeze(30)
    placed.store.freeze(60)
    found = merge(placed.attend_ranges(q, ((0, 4), (25, 70))))
    keep = [*range(4), *range(25, 70)]
    torch.testing.assert_close(found.out, attend(q, k[:, keep], v[:, keep]))
    starts = torch.tensor([[28, 5, 88], [58, 28, 0]], dtype=torch.int32)
    sizes = torch.tensor([[7, 2, 9], [4, 30, 9]], dtype=torch.int32)
    found = merge(placed.attend_runs(q, Runs(starts, sizes, torch.tensor([2, 2]).int())))
    for g, keep in enumerate(([*range(28, 35), 5, 6], [*range(58, 62), *range(28, 58)])):
        right = attend(q, k[:, keep], v[:, keep])[2 * g : 2 * g + 2]
        torch.testing.assert_close(found.out[2 * g : 2 * g + 2], right)


def test_blocks_are_everything_once_in_order() -> None:
    placed = place("gpu", geometry())
    k = torch.randn(2, 50, 8)
    placed.store.append(k, k)
    placed.store.freeze(20)
    twin = placed.fork()
    found = torch.cat([block.keys_GTD for block in twin.blocks(torch.device("cpu"))], dim=1)
    torch.testing.assert_close(found, k)
    away = list(placed.blocks(torch.device("meta")))
    assert [(block.first, block.stop) for block in away] == [(0, 20), (20, 50)]
    assert all(block.keys_GTD.device.type == "meta" for block in away)


def test_stretches_that_are_brought_elsewhere_know_their_places() -> None:
    """A sparse prefill tells by them that clusters lie in an order of their own."""
    store = KVStore(2, 16, torch.float32, torch.device("cpu"))
    store.append(torch.randn(2, 700, 16), torch.randn(2, 700, 16))
    store.freeze(600)
    store.reorder(0, torch.stack([torch.randperm(600), torch.randperm(600)]))
    here, there = (list(pieces(store, torch.device(where))) for where in ("cpu", "meta"))
    assert sum(part.keys_GTD.shape[1] for part in there) == 700
    assert [part.positions_GT is None for part in here] == [False, True]
    for part in there:
        assert (part.positions_GT is None) == (part.first >= 600)
        if part.positions_GT is not None:
            assert part.positions_GT.shape == part.keys_GTD.shape[:2]


def test_cpu_means_host_memory_and_an_unknown_place_is_refused() -> None:
    assert place("cpu", geometry("meta")).device == torch.device("cpu")
    assert place("gpu", geometry("meta")).device == torch.device("meta")
    with pytest.raises(ValueError, match="placement is 'disk'"):
        place("disk", geometry())  # type: ignore[arg-type]
