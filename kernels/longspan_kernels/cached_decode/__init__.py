"""The operations `cached_decode` and `admit_pages`; see README.md for the maths."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from longspan_kernels.cached_decode import cpu, reference
from longspan_kernels.cached_decode.store import CachedStore, PagePool
from longspan_kernels.checks import check_runs, check_softcap
from longspan_kernels.dispatch import not_plain, path
from longspan_kernels.merge import merge
from longspan_kernels.on_gpu import triton_serves
from longspan_kernels.types import Partial

if TYPE_CHECKING:
    from torch import Tensor

    from longspan_kernels.dispatch import Backend
    from longspan_kernels.types import Runs

__all__ = ["CachedStore", "PagePool", "admit_pages", "cached_decode"]


def cached_decode(
    q_XD: Tensor,
    store: CachedStore,
    runs: Runs,
    *,
    scale: float,
    softcap: float | None = None,
    expected: int | None = None,
    stacked: bool = False,
    backend: Backend = "auto",
) -> Partial:
    """Attend one query position of every row to the slots that `runs` names, wherever they are.

    Row n of the runs, which have sizes, serves head n of the store and X / N query heads. A run
    that lies at home must begin as it did when its pages were admitted. Waits for nothing, and any
    number of tokens may be read. `expected`: about how many a head reads; only divides the work.
    `stacked`: parts still to be merged, over a first axis.
    Raises ValueError naming what does not fit; what the runs hold is not looked at.
    """
    heads, width = len(store.gap_2N[0]), store.near_keys_NCD.shape[2]
    if q_XD.dim() != 2 or q_XD.shape[0] % heads or q_XD.shape[1] != width:
        raise ValueError(
            f"q has shape {list(q_XD.shape)}; it should be [a multiple of {heads}, {width}]"
        )
    check_softcap(softcap)
    check_runs(runs, heads, heads)
    if runs.size_NK is None:
        raise ValueError("runs have no sizes; pages are stretches of runs, so they need them")
    if triton_serves(backend, (q_XD, *_rows(store)), (runs.start_NK, runs.size_NK, runs.count_N)):
        from longspan_kernels.cached_decode import triton

        return triton.cached_decode(
            q_XD,
            store,
            runs,
            scale=scale,
            softcap=softcap,
            expected=expected,
            stacked=stacked,
        )
    if path(backend, cpu.obstacle(q_XD, store)) is None:
        found = reference.cached_decode(q_XD, store, runs, scale=scale, softcap=softcap)
        return Partial(found.out[None], found.lse[None]) if stacked else found
    found = cpu.cached_decode(q_XD, store, runs, scale=scale, softcap=softcap, backend=backend)
    return found if stacked else merge([found], stacked=True)


def admit_pages(
    store: CachedStore, admitted_BA4: Tensor, count_B: Tensor, *, backend: Backend = "auto"
) -> None:
    """Copy the first count_B[b] pages of each list from home into the pool, and know them there.

    A page: head, first slot, size, first row of the pool, which no other page of the lists may
    name; int32, in host memory (pinned, where the store is on a GPU). Doing it again changes
    nothing. On a CPU nothing is copied, unless the reference is asked for: `cached_decode` reads
    at home there. Raises ValueError naming what does not fit; what the pages name is not looked at.
    """
    lists, rows = admitted_BA4.shape, len(store.homes)
    if len(lists) != 3 or lists[0] != rows or lists[2] != 4 or count_B.shape != (rows,):
        raise ValueError(
            f"pages have shape {list(lists)} and counts {list(count_B.shape)}; they should be"
            f" [{rows}, A, 4] and [{rows}]"
        )
    if any(each.dtype != torch.int32 for each in (admitted_BA4, count_B)):
        raise ValueError(f"pages are {admitted_BA4.dtype} and {count_B.dtype}; right is int32")
    if triton_serves(backend, _rows(store)):
        from longspan_kernels.cached_decode import triton

        triton.admit_pages(store, admitted_BA4, count_B)
        return
    if path(backend, not_plain(_rows(store))) is not None:
        return  # what is at home is read there
    reference.admit_pages(store, admitted_BA4, count_B)


def _rows(store: CachedStore) -> tuple[Tensor, ...]:
    near = store.near_keys_NCD, store.near_values_NCD
    return (*near, store.pool.keys_VD, store.pool.values_VD)
