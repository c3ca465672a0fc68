"""The operation `sparse_decode`; see README.md for the maths."""

from __future__ import annotations

from typing import TYPE_CHECKING

from longspan_kernels.checks import (
    check_per_entry,
    check_rows,
    check_runs,
    check_scale,
    check_softcap,
)
from longspan_kernels.dense_decode import cpu
from longspan_kernels.dispatch import path
from longspan_kernels.on_gpu import triton_serves
from longspan_kernels.sparse_decode import reference
from longspan_kernels.types import Partial

if TYPE_CHECKING:
    from torch import Tensor

    from longspan_kernels.dispatch import Backend
    from longspan_kernels.types import Runs

__all__ = ["sparse_decode"]


def sparse_decode(
    q_HD: Tensor,
    keys_GTD: Tensor,
    values_GTD: Tensor,
    runs: Runs,
    *,
    scale: float,
    softcap: float | None = None,
    bias_GT: Tensor | None = None,
    key_scale_GT: Tensor | None = None,
    value_scale_GT: Tensor | None = None,
    first: int = 0,
    expected: int | None = None,
    stacked: bool = False,
    backend: Backend = "auto",
    threads: int | None = None,
) -> Partial:
    """Attend one query position to the entries that `runs` names.

    Entry t of the tensors is number first + t. Runs, or parts of them, outside [first, first + T)
    are ignored, so that a store of several parts is attended by one call a part. Row n of the runs
    serves KV head n where N = G, query head n where N = H. `expected`: about how many entries a row
    reads, where the shape of the runs does not say so; only divides the work. `stacked`: the parts
    into which it was divided, over a first axis, for `merge`. The rest is as in `dense_decode`.
    """
    check_rows(q_HD, keys_GTD, values_GTD)
    check_scale("keys", keys_GTD, key_scale_GT)
    check_scale("values", values_GTD, value_scale_GT)
    check_per_entry("bias", bias_GT, keys_GTD)
    check_softcap(softcap)
    check_runs(runs, q_HD.shape[0], keys_GTD.shape[0])
    rows, numbers = (
        (q_HD, keys_GTD, values_GTD),
        (bias_GT, key_scale_GT, value_scale_GT, runs.start_NK, runs.size_NK, runs.count_N),
    )
    if triton_serves(backend, rows, numbers):
        from longspan_kernels.dense_decode import triton

        return triton.decode(
            q_HD,
            keys_GTD,
            values_GTD,
            runs=runs,
            first=first,
            expected=expected,
            stacked=stacked,
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
    if isa is None:
        found = reference.sparse_decode(
            q_HD,
            keys_GTD,
            values_GTD,
            runs,
            first=first,
            scale=scale,
            softcap=softcap,
            bias_GT=bias_GT,
            key_scale_GT=key_scale_GT,
            value_scale_GT=value_scale_GT,
        )
    else:
        found = cpu.decode(
            q_HD,
            keys_GTD,
            values_GTD,
            runs=runs,
            first=first,
            scale=scale,
            softcap=softcap,
            bias_GT=bias_GT,
            key_scale_GT=key_scale_GT,
            value_scale_GT=value_scale_GT,
            threads=threads,
            isa=isa,
        )
    return Partial(found.out[None], found.lse[None]) if stacked else found
