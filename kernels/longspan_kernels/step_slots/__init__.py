"""The operations `append_token` and `zone_runs`; see README.md."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from longspan_kernels.checks import check_tensor
from longspan_kernels.on_gpu import triton_serves
from longspan_kernels.step_slots import reference

if TYPE_CHECKING:
    from torch import Tensor

    from longspan_kernels.dispatch import Backend
    from longspan_kernels.types import Chosen, Runs

__all__ = ["append_token", "zone_runs"]


def append_token(
    keys_NCD: Tensor,
    values_NCD: Tensor,
    k_BGD: Tensor,
    v_BGD: Tensor,
    at_B: Tensor,
    *,
    skipped_B: Tensor | None = None,
    backend: Backend = "auto",
) -> None:
    """Write a token of every row, head n = b G + g, to slot at_B[b] - skipped_B[b] (int64) of the
    buffers, in their type. Waits for nothing. Raises ValueError naming what does not fit; whether
    the slots exist is not looked at.
    """
    (rows, groups, width), heads = k_BGD.shape, keys_NCD.shape[0]
    buffer = (heads, keys_NCD.shape[1], width)
    if values_NCD.shape != buffer or keys_NCD.shape != buffer or rows * groups != heads:
        raise ValueError(
            f"buffers have shape {list(keys_NCD.shape)} and {list(values_NCD.shape)}; with k"
            f" {list(k_BGD.shape)} both should be [{rows * groups}, C, {width}]"
        )
    check_tensor("v", v_BGD, k_BGD.shape, k_BGD.dtype)
    check_tensor("at", at_B, (rows,), torch.int64)
    if skipped_B is not None:
        check_tensor("skipped", skipped_B, (rows,), torch.int64)
    if triton_serves(backend, (keys_NCD, values_NCD, k_BGD, v_BGD), (at_B, skipped_B)):
        from longspan_kernels.step_slots import triton

        triton.append_token(keys_NCD, values_NCD, k_BGD, v_BGD, at_B, skipped_B)
        return
    reference.append_token(keys_NCD, values_NCD, k_BGD, v_BGD, at_B, skipped_B)


def zone_runs(
    at_B: Tensor,
    heads: int,
    chosen: Chosen | None = None,
    *,
    zones: bool = True,
    backend: Backend = "auto",
) -> Runs:
    """What a step reads, [heads, 2 + K]: everything before the indexed slots of a row, everything
    behind them, the last token (slot at_B[b], int64) included, and the chosen clusters or slots.
    Without `zones` [heads, K]: those alone.

    Without `chosen` nothing is indexed. Waits for nothing. Raises ValueError naming what does not
    fit.
    """
    rows = len(at_B)
    if heads % rows:
        raise ValueError(f"heads is {heads}; it should be a multiple of the {rows} rows")
    check_tensor("at", at_B, (rows,), torch.int64)
    if chosen is None and not zones:
        raise ValueError("neither zones nor clusters are asked for; right is one of them or both")
    if chosen is not None:
        check_tensor("indexed", chosen.indexed_2B, (2, rows), torch.int64)
        check_tensor("ids", chosen.id_NK, (heads, chosen.id_NK.shape[1]), torch.int32)
        check_tensor("count", chosen.count_N, (heads,), torch.int32)
        if (chosen.start_NC is None) != (chosen.size_NC is None):
            raise ValueError("starts and sizes are of clusters; right is both of them or neither")
        if chosen.start_NC is not None and chosen.size_NC is not None:
            shape = (heads, chosen.size_NC.shape[1])
            check_tensor("starts", chosen.start_NC, shape, torch.int32)
            check_tensor("sizes", chosen.size_NC, shape, torch.int32)
    if triton_serves(backend, (), (at_B, *(chosen or ()))):
        from longspan_kernels.step_slots import triton

        return triton.zone_runs(at_B, heads, chosen, zones)
    return reference.zone_runs(at_B, heads, chosen, zones)
