"""Block-sparse prefill attention on the native kernel."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from longspan_kernels.dense_decode.cpu import rows_obstacle
from longspan_kernels.dispatch import native, not_plain, thread_count
from longspan_kernels.types import Partial

if TYPE_CHECKING:
    from torch import Tensor


def obstacle(
    q_HQD: Tensor, keys_GTD: Tensor, values_GTD: Tensor, blocks_HXY: Tensor | None
) -> str | None:
    """Why the kernel cannot read these tensors as they are; None if it can."""
    return rows_obstacle(q_HQD, keys_GTD, values_GTD) or not_plain([blocks_HXY])


def block_sparse_prefill(
    q_HQD: Tensor,
    keys_GTD: Tensor,
    values_GTD: Tensor,
    blocks_HXY: Tensor | None,
    *,
    columns_HT: Tensor | None = None,
    block: int = 64,
    scale: float,
    softcap: float | None = None,
    causal: bool,
    threads: int | None = None,
    isa: str = "native",
) -> Partial:
    """As the reference, but for the rounding of sums and, by matrix units, of weights to bfloat16;
    `blocks_HXY` None: every block.
    """
    out_HQD = torch.empty(q_HQD.shape, dtype=torch.float32)
    lse_HQ = torch.empty(q_HQD.shape[:2], dtype=torch.float32)
    native.block_sparse_prefill(
        q_HQD,
        keys_GTD,
        values_GTD,
        None if blocks_HXY is None else blocks_HXY.contiguous(),
        None if columns_HT is None else columns_HT.contiguous(),
        block,
        causal,
        scale,
        softcap or 0.0,
        out_HQD,
        lse_HQ,
        thread_count(threads),
        isa,
    )
    return Partial(out_HQD, lse_HQ)
