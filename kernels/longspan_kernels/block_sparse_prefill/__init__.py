"""The operation `block_sparse_prefill`; see README.md for the maths."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from longspan_kernels.block_sparse_prefill import cpu, reference
from longspan_kernels.checks import check_softcap
from longspan_kernels.dispatch import path
from longspan_kernels.on_gpu import triton_serves

if TYPE_CHECKING:
    from torch import Tensor

    from longspan_kernels.dispatch import Backend
    from longspan_kernels.types import Partial

__all__ = ["block_sparse_prefill"]


def block_sparse_prefill(
    q_HQD: Tensor,
    keys_GTD: Tensor,
    values_GTD: Tensor,
    blocks_HXY: Tensor,
    *,
    columns_HT: Tensor | None = None,
    block: int = 64,
    scale: float,
    softcap: float | None = None,
    causal: bool,
    backend: Backend = "auto",
    threads: int | None = None,
) -> Partial:
    """Attend Q positions to the entries that they see; float32 out [H, Q, D] and lse [H, Q].

    `blocks_HXY`, bool, X and Y being Q and T over `block`, rounded up: the blocks of entries that a
    block of positions sees. `columns_HT`, bool: entries that every position of a head sees.
    `causal`: and of these only the entries up to i + T - Q. Raises ValueError naming what does not
    fit.
    """
    check_choice(q_HQD, keys_GTD, values_GTD, blocks_HXY, columns_HT, block, causal)
    check_softcap(softcap)
    if triton_serves(backend, (q_HQD, keys_GTD, values_GTD), (blocks_HXY, columns_HT)):
        from longspan_kernels.block_sparse_prefill import triton

        return triton.block_sparse_prefill(
            q_HQD,
            keys_GTD,
            values_GTD,
            blocks_HXY,
            columns_HT=columns_HT,
            block=block,
            scale=scale,
            softcap=softcap,
            causal=causal,
        )
    isa = path(backend, cpu.obstacle(q_HQD, keys_GTD, values_GTD, blocks_HXY))
    if isa is not None:
        return cpu.block_sparse_prefill(
            q_HQD,
            keys_GTD,
            values_GTD,
            blocks_HXY,
            columns_HT=columns_HT,
            block=block,
            scale=scale,
            softcap=softcap,
            causal=causal,
            threads=threads,
            isa=isa,
        )
    return reference.block_sparse_prefill(
        q_HQD,
        keys_GTD,
        values_GTD,
        blocks_HXY,
        columns_HT=columns_HT,
        block=block,
        scale=scale,
        softcap=softcap,
        causal=causal,
    )


def check_choice(
    q_HQD: Tensor,
    keys_GTD: Tensor,
    values_GTD: Tensor,
    blocks_HXY: Tensor,
    columns_HT: Tensor | None,
    block: int,
    causal: bool,
) -> None:
    """Queries, keys, values and what is chosen of them fit one another."""
    if keys_GTD.dim() != 3 or keys_GTD.shape != values_GTD.shape:
        raise ValueError(
            f"keys have shape {list(keys_GTD.shape)} and values {list(values_GTD.shape)};"
            " both should be [G, T, D]"
        )
    groups, entries, size = keys_GTD.shape
    if q_HQD.dim() != 3 or q_HQD.shape[2] != size or not groups or q_HQD.shape[0] % groups:
        raise ValueError(
            f"q has shape {list(q_HQD.shape)}; with keys {list(keys_GTD.shape)} it should be"
            f" [a multiple of {groups}, Q, {size}]"
        )
    heads, positions, _ = q_HQD.shape
    if causal and entries < positions:
        raise ValueError(
            f"causal prefill has {positions} queries but {entries} keys; it should have at least"
            " as many keys as queries"
        )
    if block < 1:
        raise ValueError(f"block is {block}; it should be at least 1")
    wanted = (heads, -(-positions // block), -(-entries // block))
    given = [("blocks", blocks_HXY, wanted), ("columns", columns_HT, (heads, entries))]
    for name, mask, shape in given:
        if mask is not None and (tuple(mask.shape) != shape or mask.dtype != torch.bool):
            raise ValueError(
                f"{name} are {mask.dtype} {list(mask.shape)}; with {positions} queries, {entries}"
                f" keys and blocks of {block} they should be bool {list(shape)}"
            )
