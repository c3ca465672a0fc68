"""The operations `page_gather` and `page_admit`; see README.md for the maths."""

from __future__ import annotations

from typing import TYPE_CHECKING

from longspan_kernels.dispatch import path
from longspan_kernels.on_gpu import triton_serves
from longspan_kernels.page_gather import cpu, reference

if TYPE_CHECKING:
    from torch import Tensor

    from longspan_kernels.dispatch import Backend
    from longspan_kernels.types import Pages

__all__ = ["page_admit", "page_gather"]


def page_gather(
    keys_GTD: Tensor,
    values_GTD: Tensor,
    cached_keys_VD: Tensor | None,
    cached_values_VD: Tensor | None,
    pages: Pages,
    out_keys_NED: Tensor,
    out_values_NED: Tensor,
    *,
    first: int = 0,
    backend: Backend = "auto",
    threads: int | None = None,
) -> None:
    """Fill the named entries of `out`, row n of which belongs to KV head n * G // N.

    Slot t of the store's tensors is number first + t; they may lie in host memory (pinned) while
    everything else is on a GPU. Stored pages outside [first, first + T) are skipped, so that a
    store of several parts is read by one call a part; cached pages are skipped where no cache is
    given. The cache is one pool of rows for all KV heads. Entries that no page names stay as they
    are. Raises ValueError naming what does not fit; what the pages hold is not looked at.
    """
    _check_buffer(out_keys_NED, out_values_NED, pages)
    rows, _, size = out_keys_NED.shape
    groups, width = (keys_GTD.shape[0], keys_GTD.shape[2]) if keys_GTD.dim() == 3 else (0, 0)
    if keys_GTD.shape != values_GTD.shape or not groups or rows % groups or width != size:
        raise ValueError(
            f"keys have shape {list(keys_GTD.shape)} and values {list(values_GTD.shape)}; with a"
            f" buffer of {rows} rows both should be [a divisor of {rows}, T, {size}]"
        )
    if (cached_keys_VD is None) != (cached_values_VD is None):
        raise ValueError("a cache of keys without one of values; it should be both or neither")
    if cached_keys_VD is not None and cached_values_VD is not None:
        _check_cache(cached_keys_VD, cached_values_VD, size)
    stored = (keys_GTD, values_GTD, cached_keys_VD, cached_values_VD)
    _check_types((*stored, out_keys_NED, out_values_NED))
    if _triton_serves(backend, stored, (out_keys_NED, out_values_NED), pages):
        from longspan_kernels.page_gather import triton

        triton.page_gather(*stored, pages, out_keys_NED, out_values_NED, first=first)
        return
    obstacle = cpu.obstacle((*stored, out_keys_NED, out_values_NED), pages)
    if path(backend, obstacle) is None:
        reference.page_gather(*stored, pages, out_keys_NED, out_values_NED, first=first)
        return
    cpu.page_gather(*stored, pages, out_keys_NED, out_values_NED, first=first, threads=threads)


def page_admit(
    keys_NED: Tensor,
    values_NED: Tensor,
    pages: Pages,
    cached_keys_VD: Tensor,
    cached_values_VD: Tensor,
    *,
    backend: Backend = "auto",
    threads: int | None = None,
) -> None:
    """The way back: copy the named entries of the buffer to the rows of the cache that `source`
    names; pages with a source below 0 are skipped. No row of the cache may be named twice.
    """
    _check_buffer(keys_NED, values_NED, pages)
    _check_cache(cached_keys_VD, cached_values_VD, keys_NED.shape[2])
    rows = (keys_NED, values_NED, cached_keys_VD, cached_values_VD)
    _check_types(rows)
    if _triton_serves(backend, (), rows, pages):
        from longspan_kernels.page_gather import triton

        triton.page_admit(keys_NED, values_NED, pages, cached_keys_VD, cached_values_VD)
        return
    if path(backend, cpu.obstacle(rows, pages)) is None:
        reference.page_admit(keys_NED, values_NED, pages, cached_keys_VD, cached_values_VD)
        return
    cpu.page_admit(keys_NED, values_NED, pages, cached_keys_VD, cached_values_VD, threads=threads)


def _triton_serves(
    backend: Backend, stored: tuple[Tensor | None, ...], here: tuple[Tensor, ...], pages: Pages
) -> bool:
    """Whether Triton copies: a store may also lie in pinned host memory."""
    lists = (pages.source_NP, pages.target_NP, pages.size_NP, pages.count_N)
    near = tuple(x for x in stored if x is not None and not (here[0].is_cuda and x.is_pinned()))
    return triton_serves(backend, (*here, *near), lists)


def _check_buffer(keys_NED: Tensor, values_NED: Tensor, pages: Pages) -> None:
    if keys_NED.dim() != 3 or keys_NED.shape != values_NED.shape:
        raise ValueError(
            f"the buffer has keys {list(keys_NED.shape)} and values {list(values_NED.shape)};"
            " both should be [N, E, D]"
        )
    shape = pages.source_NP.shape
    wanted = {"target_NP": shape, "size_NP": shape, "count_N": shape[:1]}
    for name, right in wanted.items():
        if getattr(pages, name).shape != right:
            raise ValueError(
                f"{name} of the pages has shape {list(getattr(pages, name).shape)}; it should be"
                f" {list(right)}"
            )
    if len(shape) != 2 or shape[0] != keys_NED.shape[0] or pages.page < 1:
        raise ValueError(
            f"pages have shape {list(shape)} and at most {pages.page} entries; it should be"
            f" [{keys_NED.shape[0]}, P] and at least 1"
        )


def _check_cache(keys_VD: Tensor, values_VD: Tensor, size: int) -> None:
    if keys_VD.dim() != 2 or keys_VD.shape != values_VD.shape or keys_VD.shape[1] != size:
        raise ValueError(
            f"the cache has keys {list(keys_VD.shape)} and values {list(values_VD.shape)};"
            f" both should be [V, {size}]"
        )


def _check_types(rows: tuple[Tensor | None, ...]) -> None:
    types = {tensor.dtype for tensor in rows if tensor is not None}
    if len(types) > 1:
        names = ", ".join(sorted(str(dtype) for dtype in types))
        raise ValueError(f"rows are {names}; they should all be of one type")
