"""The operation `sampled_decode`; see README.md for the maths."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from longspan_kernels.checks import check_per_entry, check_rows, check_runs, check_softcap
from longspan_kernels.dense_decode.cpu import numbers_obstacle, rows_obstacle
from longspan_kernels.dispatch import not_plain, path
from longspan_kernels.on_gpu import triton_serves
from longspan_kernels.sampled_decode import cpu, reference
from longspan_kernels.types import Partial

if TYPE_CHECKING:
    from torch import Tensor

    from longspan_kernels.dispatch import Backend
    from longspan_kernels.types import Runs, Sampling

__all__ = ["sampled_decode"]


def sampled_decode(
    q_HD: Tensor,
    keys_GTD: Tensor,
    values_GTD: Tensor,
    runs: Runs,
    sampling: Sampling,
    *,
    scale: float,
    first: int = 0,
    softcap: float | None = None,
    expected: int | None = None,
    stacked: bool = False,
    backend: Backend = "auto",
    threads: int | None = None,
) -> Partial:
    """Attend one query position to the entries that hash tables sampled, each weighed by the
    inverse of how likely it was to be sampled, plus 1e-4 (MagicPIG, arXiv 2410.16179).

    Entry t of the tensors is number first + t; those outside are ignored. `runs` are of single
    entries, a row a query head. `expected`, `stacked`: as in `sparse_decode`. Waits for nothing.
    Raises ValueError naming what does not fit.
    """
    check_rows(q_HD, keys_GTD, values_GTD)
    check_runs(runs, q_HD.shape[0], q_HD.shape[0])
    check_softcap(softcap)
    check_per_entry("norm", sampling.norm_GT, keys_GTD)
    if runs.size_NK is not None:
        raise ValueError("runs have sizes; sampled entries are single ones")
    numbers = (sampling.norm_GT, sampling.mean_GD, runs.start_NK, runs.count_N)
    if triton_serves(backend, (q_HD, keys_GTD, values_GTD), numbers):
        from longspan_kernels.dense_decode import triton

        return triton.decode(
            q_HD, keys_GTD, values_GTD, runs=runs, first=first, scale=scale, softcap=softcap,
            expected=expected, stacked=stacked,
            bias_GT=None, key_scale_GT=None, value_scale_GT=None,
            sampling=sampling._replace(mean_GD=sampling.mean_GD.contiguous()),
        )  # fmt: skip
    obstacle = rows_obstacle(q_HD, keys_GTD, values_GTD) or numbers_obstacle(sampling.norm_GT)
    isa = path(backend, obstacle or not_plain((sampling.mean_GD, runs.start_NK, runs.count_N)))
    given = q_HD, keys_GTD, values_GTD, runs, sampling
    options: dict[str, Any] = {"first": first, "scale": scale, "softcap": softcap}
    if isa is None:
        found = reference.sampled_decode(*given, **options)
    else:
        found = cpu.sampled_decode(*given, **options, threads=threads, isa=isa)
    return Partial(found.out[None], found.lse[None]) if stacked else found
