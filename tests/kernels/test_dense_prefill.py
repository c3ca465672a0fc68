"""Every path of prefill attention against a softmax in float64, and the paths among themselves."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from longspan_kernels.dense_prefill import blockwise, cpu, dense_prefill, fused, reference

PATHS: dict[str, Any] = {
    "reference": reference.dense_prefill,
    "fused": fused.dense_prefill,
    "blockwise": blockwise.dense_prefill,
    "cpu": cpu.dense_prefill,
    "op": dense_prefill,
}
SIZES = [
    (4, 2, 5, 5, 8),
    (4, 1, 17, 33, 16),
    (3, 3, 1, 9, 64),
    (6, 2, 40, 40, 24),
    (2, 1, 1, 1, 80),
    (4, 2, 70, 140, 64),
]
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 2e-3}


def oracle(
    q_HQD: Tensor, k_GTD: Tensor, v_GTD: Tensor, scale: float, softcap: float | None, causal: bool
) -> tuple[Tensor, Tensor]:
    heads = q_HQD.shape[0] // k_GTD.shape[0]
    k_HTD, v_HTD = (t.double().repeat_interleave(heads, 0) for t in (k_GTD, v_GTD))
    z = q_HQD.double() @ k_HTD.mT * scale
    if softcap is not None:
        z = softcap * (z / softcap).tanh()
    if causal:
        positions, entries = z.shape[1:]
        row, column = torch.arange(positions)[:, None], torch.arange(entries)
        z = z.masked_fill(column > row + entries - positions, -float("inf"))
    return (z.softmax(-1) @ v_HTD).float(), z.logsumexp(-1).float()


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_every_path_is_softmax_attention(
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    sizes: tuple[int, ...],
    dtype: torch.dtype,
    causal: bool,
) -> None:
    monkeypatch.setattr(blockwise, "BLOCK", 7)
    heads, groups, positions, entries, size = sizes
    rng = torch.Generator().manual_seed(size)
    q_HQD = torch.randn(heads, positions, size, generator=rng).to(dtype)
    k_GTD = torch.randn(groups, entries, size, generator=rng).to(dtype)
    v_GTD = torch.randn(groups, entries, size, generator=rng).to(dtype)
    caps = (None,) if name == "fused" else (None, 1.5)
    for softcap in caps:
        extra = {} if name == "fused" else {"softcap": softcap}
        found = PATHS[name](q_HQD, k_GTD, v_GTD, scale=0.3, causal=causal, **extra)
        out, lse = oracle(q_HQD, k_GTD, v_GTD, 0.3, softcap, causal)
        assert found.out.dtype == found.lse.dtype == torch.float32
        near = {"atol": TOLERANCE[dtype], "rtol": TOLERANCE[dtype]}
        torch.testing.assert_close(found.out, out, **near)
        torch.testing.assert_close(found.lse, lse, **near)


def test_views_are_read_as_they_lie() -> None:
    q_QHD, k_TGD = torch.randn(6, 4, 8), torch.randn(20, 2, 8)
    cache_GCD = torch.full((2, 50, 8), float("nan"))
    cache_GCD[:, :20] = k_TGD.transpose(0, 1)
    q_HQD, k_GTD = q_QHD.transpose(0, 1), cache_GCD[:, :20]
    found = dense_prefill(q_HQD, k_GTD, k_GTD, scale=0.3, causal=True)
    out, _ = oracle(q_HQD, k_GTD, k_GTD, 0.3, None, True)
    torch.testing.assert_close(found.out, out, atol=1e-5, rtol=1e-5)


def test_positions_without_an_entry_are_refused() -> None:
    q, k = torch.randn(2, 5, 8), torch.randn(1, 4, 8)
    for path in (dense_prefill, reference.dense_prefill):
        with pytest.raises(ValueError, match="5 queries but 4 keys"):
            path(q, k, k, scale=1.0, causal=True)


EMPTY = [(0, 5, True), (0, 5, False), (3, 0, False), (0, 0, True), (0, 0, False)]
"""Q, T, causal."""


def check_empty(name: str, positions: int, entries: int, causal: bool, **made: Any) -> None:
    q_HQD = torch.randn(14, positions, 80, **made)
    k_GTD, v_GTD = (torch.randn(2, entries, 80, **made) for _ in "kv")
    found = PATHS[name](q_HQD, k_GTD, v_GTD, scale=0.1, causal=causal)
    assert found.out.dtype == found.lse.dtype == torch.float32
    assert found.out.device == found.lse.device == q_HQD.device
    assert torch.equal(found.out.cpu(), torch.zeros(14, positions, 80))
    assert torch.equal(found.lse.cpu(), torch.full((14, positions), -float("inf")))


@pytest.mark.parametrize(("positions", "entries", "causal"), EMPTY)
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("name", PATHS)
def test_nothing_asked_or_nothing_to_attend_is_an_empty_part(
    name: str, dtype: torch.dtype, positions: int, entries: int, causal: bool
) -> None:
    check_empty(name, positions, entries, causal, dtype=dtype)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize(("positions", "entries", "causal"), EMPTY)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_a_gpu_gives_an_empty_part_too(
    dtype: torch.dtype, positions: int, entries: int, causal: bool
) -> None:
    check_empty("op", positions, entries, causal, dtype=dtype, device="cuda")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("sizes", [*SIZES, (32, 8, 700, 3000, 128)], ids=str)
def test_a_gpu_says_the_same(sizes: tuple[int, ...], dtype: torch.dtype, causal: bool) -> None:
    heads, groups, positions, entries, size = sizes
    rng = torch.Generator().manual_seed(size)
    q_HQD = torch.randn(heads, positions, size, generator=rng).to(dtype)
    k_GTD, v_GTD = (torch.randn(groups, entries, size, generator=rng).to(dtype) for _ in "kv")
    there = (x.cuda() for x in (q_HQD, k_GTD, v_GTD))
    assert fused.serves(q_HQD.cuda(), k_GTD.cuda()) == (dtype != torch.float32)
    out, lse = dense_prefill(*there, scale=0.2, causal=causal)
    right_out, right_lse = oracle(q_HQD, k_GTD, v_GTD, 0.2, None, causal)
    torch.testing.assert_close(out.cpu(), right_out, atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype])
    torch.testing.assert_close(lse.cpu(), right_lse, atol=1e-3, rtol=1e-3)
