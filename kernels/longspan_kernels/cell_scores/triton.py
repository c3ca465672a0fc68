"""Scores of cells in Triton."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl

from longspan_kernels.cell_scores.reference import rows_of
from longspan_kernels.jit import capped, device_of, exact, pow2

if TYPE_CHECKING:
    from torch import Tensor


@triton.jit
def score_cells(
    q, keys, lse, scale, softcap, Q, T, R, C, Y, TILES, ahead, last,
    q_stride_h, q_stride_q, k_stride_g, k_stride_t,
    D: tl.constexpr, STRIDE: tl.constexpr, CELLS: tl.constexpr,
    CAPPED: tl.constexpr, EXACT: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Log-sum-exps of BLOCK_M cells of positions of a head with the blocks of BLOCK_N cells of
    entries. Cell c sees the cells up to c + `ahead`, and no later one than `last`.
    """
    head = tl.program_id(1).to(tl.int64)
    c = tl.program_id(0) // TILES * BLOCK_M + tl.arange(0, BLOCK_M)
    first = tl.program_id(0) % TILES * BLOCK_N
    e, d = first + tl.arange(0, BLOCK_N), tl.arange(0, BLOCK_D)
    z_ME = tl.full((BLOCK_M, BLOCK_N), -float("inf"), tl.float32)
    if first <= tl.minimum(tl.max(c, 0) + ahead, last):
        acc = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
        q_from = q + head * q_stride_h + d[None, :]
        k_from = keys + head // R * k_stride_g + d[None, :]
        for i in range(STRIDE):  # the last position of a cell meets its first entry
            position, entry = c * STRIDE + (STRIDE - 1 - i), e * STRIDE + i
            q_at, k_at = position.to(tl.int64) * q_stride_q, entry.to(tl.int64) * k_stride_t
            q_MD = tl.load(q_from + q_at[:, None], (position < Q)[:, None] & (d < D)[None, :], 0)
            k_ED = tl.load(k_from + k_at[:, None], (entry < T)[:, None] & (d < D)[None, :], 0)
            if EXACT:
                q_MD, k_ED = q_MD.to(tl.float32), k_ED.to(tl.float32)
            acc = tl.dot(q_MD, tl.trans(k_ED), acc, input_precision="ieee")
        seen = e[None, :] <= tl.minimum(c + ahead, last)[:, None]
        z_ME = tl.where(seen, capped(acc * scale, softcap, CAPPED), -float("inf"))
    z_MYE = tl.reshape(z_ME, (BLOCK_M, BLOCK_N // CELLS, CELLS))
    top_MY = tl.max(z_MYE, 2)
    base_MY = tl.where(top_MY == -float("inf"), 0.0, top_MY)
    mass_MY = tl.sum(tl.exp(z_MYE - base_MY[:, :, None]), 2)
    y = first // CELLS + tl.arange(0, BLOCK_N // CELLS)
    at = (head * C + c)[:, None] * Y + y[None, :]
    none = mass_MY == 0
    found = base_MY + tl.log(tl.where(none, 1.0, mass_MY))
    found = tl.where(none, -float("inf"), found)
    tl.store(lse + at, found, (c < C)[:, None] & (y < Y)[None, :])


def cell_scores(
    q_HQD: Tensor,
    keys_GTD: Tensor,
    *,
    stride: int,
    block: int,
    ahead: int,
    scale: float,
    softcap: float | None,
) -> Tensor:
    """As the reference, but for the rounding of sums."""
    (heads, positions, width), (groups, entries, _) = q_HQD.shape, keys_GTD.shape
    cells = block // stride
    rows, blocks = rows_of(positions, block, cells), -(-entries // block)
    lse_HCY = torch.empty(heads, rows, blocks, device=q_HQD.device)
    if not lse_HCY.numel():
        return lse_HCY
    exactly = exact(q_HQD, keys_GTD)
    tile = 32 if exactly else 64 if width > 128 else 128
    tiles = triton.cdiv(blocks * cells, tile)
    with device_of(q_HQD):
        score_cells[(triton.cdiv(rows, tile) * tiles, heads)](
            q_HQD, keys_GTD, lse_HCY, scale, softcap or 0.0, positions, entries, heads // groups,
            rows, blocks, tiles, ahead // stride, -(-entries // stride) - 1,
            *q_HQD.stride()[:2], *keys_GTD.stride()[:2], D=width, STRIDE=stride, CELLS=cells,
            CAPPED=softcap is not None, EXACT=exactly,
            BLOCK_M=tile, BLOCK_N=tile, BLOCK_D=pow2(width, 16), num_warps=8 if tile == 128 else 4,
        )  # fmt: skip
    return lse_HCY
