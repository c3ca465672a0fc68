"""Decode attention on the native kernels; `sparse_decode` shares it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from longspan_kernels.dispatch import Unsupported, native, not_plain, thread_count
from longspan_kernels.types import Partial

if TYPE_CHECKING:
    from torch import Tensor

    from longspan_kernels.types import Runs

STORAGE = (torch.bfloat16, torch.float32, torch.float16, torch.int8)


def rows_obstacle(*rows: Tensor) -> str | None:
    """Why the kernels cannot read these rows [.., D] as they are; None if they can."""
    for tensor in rows:
        if tensor.dtype not in STORAGE:
            return Unsupported(f"no kernel reads {tensor.dtype}")
        if tensor.shape[-1] % 8 or not tensor.shape[-1]:
            return Unsupported(f"head size {tensor.shape[-1]} is not a multiple of 8")
        if tensor.stride(-1) != 1 and tensor.numel():
            return f"the elements of a row are {tensor.stride(-1)} apart"
    return not_plain(rows)


def numbers_obstacle(*numbers_GT: Tensor | None) -> str | None:
    """The same for arrays of one float32 an entry."""
    for tensor in numbers_GT:
        if tensor is None:
            continue
        if tensor.dtype != torch.float32 or (tensor.stride(-1) != 1 and tensor.numel()):
            return f"a number an entry is {tensor.dtype} with strides {tensor.stride()}"
    return not_plain(numbers_GT)


def decode(
    q_HD: Tensor,
    keys_GTD: Tensor,
    values_GTD: Tensor,
    *,
    runs: Runs | None = None,
    first: int = 0,
    scale: float,
    softcap: float | None,
    bias_GT: Tensor | None,
    key_scale_GT: Tensor | None,
    value_scale_GT: Tensor | None,
    threads: int | None,
    isa: str,
) -> Partial:
    """As the references of `dense_decode` and, with runs, of `sparse_decode`."""
    out_HD = torch.empty(q_HD.shape, dtype=torch.float32)
    lse_H = torch.empty(q_HD.shape[0], dtype=torch.float32)
    native.decode(
        q_HD,
        keys_GTD,
        values_GTD,
        key_scale_GT,
        value_scale_GT,
        bias_GT,
        None if runs is None else runs.start_NK.contiguous(),
        None if runs is None or runs.size_NK is None else runs.size_NK.contiguous(),
        None if runs is None else runs.count_N.contiguous(),
        first,
        scale,
        softcap or 0.0,
        out_HD,
        lse_H,
        thread_count(threads),
        isa,
    )
    return Partial(out_HD, lse_H)
