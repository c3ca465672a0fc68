"""The operation `cell_scores`; see README.md for the maths."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from longspan_kernels.cell_scores import cpu, reference
from longspan_kernels.checks import check_softcap
from longspan_kernels.dense_decode.cpu import rows_obstacle
from longspan_kernels.dispatch import path
from longspan_kernels.on_gpu import triton_serves

if TYPE_CHECKING:
    from torch import Tensor

    from longspan_kernels.dispatch import Backend

__all__ = ["cell_scores"]

MOST_CELLS = 32
"""A block's, of a power of two."""


def cell_scores(
    q_HQD: Tensor,
    keys_GTD: Tensor,
    *,
    stride: int,
    block: int,
    ahead: int = 0,
    scale: float,
    softcap: float | None = None,
    backend: Backend = "auto",
    threads: int | None = None,
) -> Tensor:
    """float32 [H, C, Y]: the log-sum-exp of the scores of each cell of `stride` positions with the
    cells of each block of entries that it sees, of whole blocks of positions (C) and entries (Y);
    -inf where it sees none.

    A score is the sum of `stride` products along an antidiagonal, times `scale`. `ahead`: how far
    the first position is ahead of the first entry. XAttention (arXiv 2503.16428), section 2.
    Raises ValueError naming what does not fit.
    """
    check(q_HQD, keys_GTD, stride, block, ahead)
    check_softcap(softcap)
    cut = {"stride": stride, "block": block, "ahead": ahead}
    options: dict[str, Any] = {"scale": scale, "softcap": softcap, **cut}
    if triton_serves(backend, (q_HQD, keys_GTD)):
        from longspan_kernels.cell_scores import triton

        return triton.cell_scores(q_HQD, keys_GTD, **options)
    isa = path(backend, rows_obstacle(q_HQD, keys_GTD))
    if isa is None:
        return reference.cell_scores(q_HQD, keys_GTD, **options)
    return cpu.cell_scores(q_HQD, keys_GTD, **options, threads=threads, isa=isa)


def check(q_HQD: Tensor, keys_GTD: Tensor, stride: int, block: int, ahead: int) -> None:
    """Queries, keys, and how they are cut, fit one another."""
    if keys_GTD.dim() != 3 or not keys_GTD.shape[0]:
        raise ValueError(f"keys have shape {list(keys_GTD.shape)}; it should be [G, T, D]")
    groups, _, size = keys_GTD.shape
    if q_HQD.dim() != 3 or q_HQD.shape[2] != size or q_HQD.shape[0] % groups:
        raise ValueError(
            f"q has shape {list(q_HQD.shape)}; with keys {list(keys_GTD.shape)} it should be"
            f" [a multiple of {groups}, Q, {size}]"
        )
    cells = block // max(1, stride)
    if stride < 1 or cells * stride != block or cells & (cells - 1) or cells > MOST_CELLS:
        raise ValueError(
            f"stride is {stride} and block is {block}; a block should be 1, 2, 4 ... {MOST_CELLS}"
            " strides"
        )
    if ahead < 0:
        raise ValueError(f"ahead is {ahead}; it should be at least 0")
