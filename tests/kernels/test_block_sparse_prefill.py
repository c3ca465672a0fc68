"""Every path of block-sparse prefill against masked softmax attention in float64."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from tests.kernels.test_dense_prefill import TOLERANCE, oracle
from torch import Tensor

from longspan_kernels.block_sparse_prefill import block_sparse_prefill, cpu, reference
from longspan_kernels.dense_prefill import dense_prefill
from longspan_kernels.dispatch import build_info, warn_slow
from longspan_kernels.merge import merge

PATHS: dict[str, Any] = {
    "reference": reference.block_sparse_prefill,
    "op": block_sparse_prefill,
    **{isa: partial(cpu.block_sparse_prefill, isa=isa) for isa in build_info()["isas"]},
}
# heads, groups, positions, entries, head size, block
SIZES = [
    (4, 2, 5, 5, 8, 4),
    (4, 1, 17, 133, 16, 16),
    (3, 3, 1, 9, 64, 64),
    (6, 2, 140, 140, 24, 32),
    (2, 1, 150, 300, 80, 64),
    (2, 2, 130, 257, 128, 128),
    (4, 2, 300, 1300, 64, 32),
]
ALIKE = {"atol": 2e-5, "rtol": 2e-5}
BY_PAIRS = {"op", "amx", "avx512_bf16"}
"""Paths that may round weights to bfloat16."""


def near(name: str, dtype: torch.dtype) -> dict[str, float]:
    if name in BY_PAIRS and dtype == torch.bfloat16:
        return {"atol": 1e-2, "rtol": 1e-2}
    return ALIKE


def inputs(sizes: tuple[int, ...], dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    heads, groups, positions, entries, size, _ = sizes
    rng = torch.Generator().manual_seed(size)
    shapes = (heads, positions, size), (groups, entries, size), (groups, entries, size)
    q, k, v = (torch.randn(shape, generator=rng).to(dtype) for shape in shapes)
    return q, k, v


def choice(sizes: tuple[int, ...], share: float, columns: bool) -> tuple[Tensor, Tensor | None]:
    heads, _, positions, entries, _, block = sizes
    grid = (heads, -(-positions // block), -(-entries // block))
    rng = torch.Generator().manual_seed(positions)
    blocks_HXY = torch.rand(grid, generator=rng) < share
    columns_HT = torch.rand(heads, entries, generator=rng) < 0.1 if columns else None
    return blocks_HXY, columns_HT


def masked(
    q_HQD: Tensor, k_GTD: Tensor, v_GTD: Tensor, blocks_HXY: Tensor, columns_HT: Tensor | None,
    block: int, scale: float, softcap: float | None, causal: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Position by position, entry by entry, in float64."""
    heads, positions, size = q_HQD.shape
    entries, group = k_GTD.shape[1], q_HQD.shape[0] // k_GTD.shape[0]
    out = torch.zeros(heads, positions, size, dtype=torch.float64)
    lse = torch.full((heads, positions), -float("inf"), dtype=torch.float64)
    for h in range(heads):
        for i in range(positions):
            last = i + entries - positions if causal else entries - 1
            ids = [
                t
                for t in range(last + 1)
                if blocks_HXY[h, i // block, t // block]
                or (columns_HT is not None and columns_HT[h, t])
            ]
            if not ids:
                continue
            z = k_GTD[h // group, ids].double() @ q_HQD[h, i].double() * scale
            if softcap is not None:
                z = softcap * (z / softcap).tanh()
            lse[h, i] = z.logsumexp(0)
            out[h, i] = z.softmax(0) @ v_GTD[h // group, ids].double()
    return out.float(), lse.float()


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("sizes", SIZES[:4], ids=str)
def test_the_reference_is_masked_attention(sizes: tuple[int, ...], causal: bool) -> None:
    given = inputs(sizes, torch.float32)
    for softcap, share, columns in ((None, 0.4, True), (1.5, 0.7, False), (None, 0.0, True)):
        blocks, single = choice(sizes, share, columns)
        found = reference.block_sparse_prefill(
            *given, blocks, columns_HT=single, block=sizes[-1], scale=0.3, softcap=softcap,
            causal=causal,
        )  # fmt: skip
        right = masked(*given, blocks, single, sizes[-1], 0.3, softcap, causal)
        torch.testing.assert_close(found.out, right[0], **ALIKE)
        torch.testing.assert_close(found.lse, right[1], **ALIKE)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_every_path_is_the_reference(
    sizes: tuple[int, ...], dtype: torch.dtype, causal: bool
) -> None:
    given = inputs(sizes, dtype)
    for softcap, share, columns in ((None, 0.4, True), (1.5, 0.3, False), (None, 0.0, True)):
        blocks, single = choice(sizes, share, columns)
        settings: dict[str, Any] = {
            "columns_HT": single, "block": sizes[-1], "scale": 0.3, "softcap": softcap,
            "causal": causal,
        }  # fmt: skip
        right = reference.block_sparse_prefill(*given, blocks, **settings)
        for name, path in PATHS.items():
            found = path(*given, blocks, **settings)
            assert found.out.dtype == found.lse.dtype == torch.float32
            torch.testing.assert_close(found.out, right.out, **near(name, dtype))
            torch.testing.assert_close(found.lse, right.lse, **ALIKE)


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize("causal", [True, False])
def test_every_block_is_dense_attention(name: str, causal: bool) -> None:
    for sizes in SIZES:
        given = inputs(sizes, torch.float32)
        blocks, _ = choice(sizes, 2.0, False)
        found = PATHS[name](*given, blocks, block=sizes[-1], scale=0.3, causal=causal)
        out, lse = oracle(*given, 0.3, None, causal)
        torch.testing.assert_close(found.out, out, **ALIKE)
        torch.testing.assert_close(found.lse, lse, **ALIKE)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", PATHS)
def test_scores_may_grow_beyond_any_exponent(name: str, dtype: torch.dtype) -> None:
    """The largest score so far may be hundreds below the next; one entry then holds everything."""
    q, k, v = inputs((4, 2, 70, 2100, 64, 64), dtype)
    k = (k * torch.linspace(0, 12, 2100)[:, None]).to(dtype)
    blocks, _ = choice((4, 2, 70, 2100, 64, 64), 2.0, False)
    settings: dict[str, Any] = {"block": 64, "scale": 1.0, "causal": True}
    right = reference.block_sparse_prefill(q, k, v, blocks, **settings)
    assert right.lse.max() > 200
    found = PATHS[name](q, k, v, blocks, **settings)
    torch.testing.assert_close(found.out, right.out, **near(name, dtype))
    torch.testing.assert_close(found.lse, right.lse, atol=1e-3, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", PATHS)
def test_what_is_not_a_number_stays_so_and_stays_where_it_is(name: str, dtype: torch.dtype) -> None:
    sizes = (4, 2, 70, 300, 64, 64)
    q, k, v = inputs(sizes, dtype)
    blocks, single = choice(sizes, 0.5, True)
    settings: dict[str, Any] = {"columns_HT": single, "block": 64, "scale": 0.3, "causal": True}
    whole = PATHS[name](q, k, v, blocks, **settings)
    q[1, 40, 3] = float("nan")
    found = PATHS[name](q, k, v, blocks, **settings)
    assert found.out[1, 40].isnan().all()
    assert found.lse[1, 40].isnan()
    others = torch.ones(4, 70, dtype=torch.bool)
    others[1, 40] = False
    assert torch.equal(found.out[others], whole.out[others])
    assert torch.equal(found.lse[others], whole.lse[others])


@pytest.mark.parametrize("name", PATHS)
def test_parts_of_a_choice_merge_and_say_what_they_recover(name: str) -> None:
    sizes = (4, 2, 70, 140, 16, 16)
    q, k, v = inputs(sizes, torch.float32)
    settings: dict[str, Any] = {"block": 16, "scale": 0.3, "causal": True}
    blocks, _ = choice(sizes, 0.5, False)
    parts = [PATHS[name](q, k, v, each, **settings) for each in (blocks, ~blocks)]
    whole = dense_prefill(q, k, v, scale=0.3, causal=True)
    together = merge(parts)
    torch.testing.assert_close(together.out, whole.out, **ALIKE)
    shares = [(part.lse - whole.lse).exp() for part in parts]
    torch.testing.assert_close(shares[0] + shares[1], torch.ones(4, 70), **ALIKE)


@pytest.mark.parametrize(("dtype", "size"), [(torch.float32, 8), (torch.bfloat16, 64)], ids=str)
@pytest.mark.parametrize("name", PATHS)
def test_views_are_read_as_they_lie(name: str, dtype: torch.dtype, size: int) -> None:
    sizes = (4, 2, 20, 50, size, 16)
    q_HQD = torch.randn(20, 4, size).to(dtype).transpose(0, 1)
    cache_GCD = torch.full((2, 90, size), float("nan"), dtype=dtype)
    cache_GCD[:, :50] = torch.randn(2, 50, size)
    k_GTD = cache_GCD[:, :50]
    blocks, single = choice(sizes, 0.5, True)
    settings: dict[str, Any] = {"columns_HT": single, "block": 16, "scale": 0.3, "causal": True}
    found = PATHS[name](q_HQD, k_GTD, k_GTD, blocks, **settings)
    right = masked(q_HQD, k_GTD, k_GTD, blocks, single, 16, 0.3, None, True)
    torch.testing.assert_close(found.out, right[0], **near(name, dtype))
    torch.testing.assert_close(found.lse, right[1], **ALIKE)


def test_what_does_not_fit_is_refused() -> None:
    q, k = torch.randn(2, 5, 8), torch.randn(1, 9, 8)
    good = torch.ones(2, 2, 3, dtype=torch.bool)

    def call(queries: Tensor = q, blocks: Tensor = good, **more: Any) -> None:
        settings: dict[str, Any] = {"block": 4, "scale": 1.0, "causal": True, **more}
        block_sparse_prefill(queries, k, k, blocks, **settings)

    call()
    with pytest.raises(ValueError, match=r"bool \[2, 2, 3\]"):
        call(blocks=good[:, :1])
    with pytest.raises(ValueError, match=r"bool \[2, 2, 3\]"):
        call(blocks=good.int())
    with pytest.raises(ValueError, match=r"columns.*bool \[2, 9\]"):
        call(columns_HT=torch.ones(2, 8, dtype=torch.bool))
    with pytest.raises(ValueError, match="10 queries but 9 keys"):
        call(torch.randn(2, 10, 8))
    with pytest.raises(ValueError, match="block is 0"):
        call(block=0)
    with pytest.raises(ValueError, match="softcap is 0"):
        call(softcap=0.0)


def test_the_native_path_is_chosen_where_it_can_be_and_no_thread_changes_it() -> None:
    for dtype, size in ((torch.float32, 16), (torch.bfloat16, 64)):
        sizes = (4, 2, 130, 257, size, 64)
        given, (blocks, single) = inputs(sizes, dtype), choice(sizes, 0.5, True)
        settings: dict[str, Any] = {"columns_HT": single, "scale": 0.3, "causal": True}
        one, two = (
            block_sparse_prefill(*given, blocks, **settings, backend="native", threads=threads)
            for threads in (1, 2)
        )
        assert torch.equal(one.out, two.out)
        assert torch.equal(one.lse, two.lse)
    odd = inputs((4, 2, 130, 257, 12, 64), torch.float32)
    warn_slow.cache_clear()
    with pytest.warns(UserWarning, match="head size 12 is not a multiple of 8"):
        block_sparse_prefill(*odd, blocks, **settings)
    with pytest.raises(ValueError, match="head size 12 is not a multiple of 8"):
        block_sparse_prefill(*odd, blocks, **settings, backend="native")
