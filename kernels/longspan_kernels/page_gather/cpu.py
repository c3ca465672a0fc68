"""Copies of pages on the native kernel."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from longspan_kernels.dispatch import native, not_plain, thread_count

if TYPE_CHECKING:
    from torch import Tensor

    from longspan_kernels.types import Pages


def obstacle(rows: tuple[Tensor | None, ...], pages: Pages) -> str | None:
    """Why the kernel cannot copy between these rows [.., D] as they are; None if it can."""
    for tensor in rows:
        if tensor is not None and tensor.stride(-1) != 1 and tensor.numel():
            return f"the elements of a row are {tensor.stride(-1)} apart"
    lists = (pages.source_NP, pages.target_NP, pages.size_NP, pages.count_N)
    for tensor in lists:
        if tensor.dtype != torch.int32 or not tensor.is_contiguous():
            return f"the pages are {tensor.dtype} with strides {tensor.stride()}"
    return not_plain((*rows, *lists))


def as_bytes(tensor: Tensor) -> Tensor:
    """The same rows as bytes: a copy does not care what it copies."""
    return tensor.detach().view(torch.uint8)


def page_gather(
    keys_GTD: Tensor,
    values_GTD: Tensor,
    cached_keys_VD: Tensor | None,
    cached_values_VD: Tensor | None,
    pages: Pages,
    out_keys_NED: Tensor,
    out_values_NED: Tensor,
    *,
    first: int,
    threads: int | None,
) -> None:
    """As the reference."""
    for store, cache, out in (
        (keys_GTD, cached_keys_VD, out_keys_NED),
        (values_GTD, cached_values_VD, out_values_NED),
    ):
        native.page_gather(
            as_bytes(store),
            None if cache is None else as_bytes(cache),
            pages.source_NP,
            pages.target_NP,
            pages.size_NP,
            pages.count_N,
            as_bytes(out),
            first,
            thread_count(threads),
        )


def page_admit(
    keys_NED: Tensor,
    values_NED: Tensor,
    pages: Pages,
    cached_keys_VD: Tensor,
    cached_values_VD: Tensor,
    *,
    threads: int | None,
) -> None:
    """As the reference."""
    for buffer, cache in ((keys_NED, cached_keys_VD), (values_NED, cached_values_VD)):
        native.page_admit(
            as_bytes(buffer),
            pages.source_NP,
            pages.target_NP,
            pages.size_NP,
            pages.count_N,
            as_bytes(cache),
            thread_count(threads),
        )
