"""Prefill attention on the native kernel: block-sparse attention to every block."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from longspan_kernels.block_sparse_prefill import cpu as block_sparse
from longspan_kernels.dispatch import native

if TYPE_CHECKING:
    from torch import Tensor

    from longspan_kernels.types import Partial

TILE = 32
"""Products of bfloat16 take head sizes that are multiples of it."""
FEWEST = 16
"""Positions from which on they pay for transposing the values."""


def serves(q_HQD: Tensor, keys_GTD: Tensor, values_GTD: Tensor, softcap: float | None) -> bool:
    """Whether the kernel takes these tensors and is the fastest path: where the CPU multiplies
    bfloat16, or where PyTorch has no kernel, with a soft cap.
    """
    if native is None or block_sparse.obstacle(q_HQD, keys_GTD, values_GTD, None):
        return False
    alike = {q_HQD.dtype, keys_GTD.dtype, values_GTD.dtype} == {torch.bfloat16}
    products = "avx512_bf16" in native.isas() and alike and q_HQD.shape[-1] % TILE == 0
    return (products and q_HQD.shape[1] >= FEWEST) or softcap is not None


def dense_prefill(
    q_HQD: Tensor,
    keys_GTD: Tensor,
    values_GTD: Tensor,
    *,
    scale: float,
    softcap: float | None = None,
    causal: bool,
) -> Partial:
    """As the reference, but for the rounding; see block_sparse_prefill."""
    return block_sparse.block_sparse_prefill(
        q_HQD, keys_GTD, values_GTD, None, scale=scale, softcap=softcap, causal=causal
    )
