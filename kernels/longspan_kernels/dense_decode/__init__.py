"""The operation `dense_decode`; see README.md for the maths."""

from __future__ import annotations

from typing import TYPE_CHECKING

from longspan_kernels.checks import check_per_entry, check_rows, check_scale, check_softcap
from longspan_kernels.dense_decode import cpu, reference
from longspan_kernels.dispatch import path
from longspan_kernels.on_gpu import triton_serves

if TYPE_CHECKING:
    from torch import Tensor

    from longspan_kernels.dispatch import Backend
    from longspan_kernels.types import Partial

__all__ = ["dense_decode"]


def dense_decode(
    q_HD: Tensor,
    keys_GTD: Tensor,
    values_GTD: Tensor,
    *,
    scale: float,
    softcap: float | None = None,
    bias_GT: Tensor | None = None,
    key_scale_GT: Tensor | None = None,
    value_scale_GT: Tensor | None = None,
    backend: Backend = "auto",
    threads: int | None = None,
) -> Partial:
    """Attend one query position to all T entries.

    `bias_GT` is added to the scaled, soft-capped scores (ln of a multiplicity). int8 keys and
    values stand for themselves times one scale an entry. The G axis, and T, may be strided.
    Raises ValueError naming what does not fit.
    """
    check_rows(q_HD, keys_GTD, values_GTD)
    check_scale("keys", keys_GTD, key_scale_GT)
    check_scale("values", values_GTD, value_scale_GT)
    check_per_entry("bias", bias_GT, keys_GTD)
    check_softcap(softcap)
    rows, numbers = (q_HD, keys_GTD, values_GTD), (bias_GT, key_scale_GT, value_scale_GT)
    if triton_serves(backend, rows, numbers):
        from longspan_kernels.dense_decode import triton

        return triton.decode(
            q_HD,
            keys_GTD,
            values_GTD,
            scale=scale,
            softcap=softcap,
            bias_GT=bias_GT,
            key_scale_GT=key_scale_GT,
            value_scale_GT=value_scale_GT,
        )
    obstacle = cpu.rows_obstacle(q_HD, keys_GTD, values_GTD) or cpu.numbers_obstacle(
        bias_GT, key_scale_GT, value_scale_GT
    )
    isa = path(backend, obstacle)
    if isa is not None:
        return cpu.decode(
            q_HD,
            keys_GTD,
            values_GTD,
            scale=scale,
            softcap=softcap,
            bias_GT=bias_GT,
            key_scale_GT=key_scale_GT,
            value_scale_GT=value_scale_GT,
            threads=threads,
            isa=isa,
        )
    return reference.dense_decode(
        q_HD,
        keys_GTD,
        values_GTD,
        scale=scale,
        softcap=softcap,
        bias_GT=bias_GT,
        key_scale_GT=key_scale_GT,
        value_scale_GT=value_scale_GT,
    )
