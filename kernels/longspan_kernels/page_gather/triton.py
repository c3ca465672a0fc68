"""Copies of pages in Triton: from the cache and from host memory in one launch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl

from longspan_kernels.jit import device_of, pow2

if TYPE_CHECKING:
    from torch import Tensor

    from longspan_kernels.types import Pages

WORDS = {1: torch.int8, 2: torch.int16, 4: torch.int32}
"""What rows are copied as: a copy does not care what it copies."""


@triton.jit
def copy_page(
    store_k, store_v, cache_k, cache_v, buffer_k, buffer_v, source, target, size, count,
    first, T, P, RATIO, D, sk_g, sk_t, sv_g, sv_t, ck, cv, bk_n, bk_e, bv_n, bv_e,
    STORED: tl.constexpr, CACHED: tl.constexpr, ADMIT: tl.constexpr,
    BLOCK_S: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """One page of one row: into the buffer, or, to ADMIT it, from there into the cache."""
    page, row = tl.program_id(0), tl.program_id(1).to(tl.int64)
    at = row * P + page
    live = page < tl.load(count + row)
    origin = tl.load(source + at, live, 0).to(tl.int64)
    s, d = tl.arange(0, BLOCK_S), tl.arange(0, BLOCK_D)
    mask_S = s < tl.load(size + at, live, 0)
    entry = (tl.load(target + at, live, 0).to(tl.int64) + s)[:, None]
    to_k = buffer_k + row * bk_n + entry * bk_e + d[None, :]
    to_v = buffer_v + row * bv_n + entry * bv_e + d[None, :]
    inside_D = (d < D)[None, :]
    if CACHED:
        mask = (mask_S & (origin >= 0))[:, None] & inside_D
        line = (origin + s)[:, None]
        at_k, at_v = cache_k + line * ck + d[None, :], cache_v + line * cv + d[None, :]
        if ADMIT:
            tl.store(at_k, tl.load(to_k, mask, 0), mask)
            tl.store(at_v, tl.load(to_v, mask, 0), mask)
        else:
            tl.store(to_k, tl.load(at_k, mask, 0), mask)
            tl.store(to_v, tl.load(at_v, mask, 0), mask)
    if STORED:
        slot = -1 - origin - first + s
        mask = (mask_S & (origin < 0) & (slot >= 0) & (slot < T))[:, None] & inside_D
        group = row // RATIO
        at_k = store_k + group * sk_g + slot[:, None] * sk_t + d[None, :]
        at_v = store_v + group * sv_g + slot[:, None] * sv_t + d[None, :]
        tl.store(to_k, tl.load(at_k, mask, 0), mask)
        tl.store(to_v, tl.load(at_v, mask, 0), mask)


def _launch(
    store: tuple[Tensor, Tensor] | None,
    cache: tuple[Tensor, Tensor] | None,
    buffer: tuple[Tensor, Tensor],
    pages: Pages,
    first: int,
    admit: bool,
) -> None:
    words = WORDS[buffer[0].itemsize]
    buffers = tuple(x.view(words) for x in buffer)
    stores = buffers if store is None else tuple(x.view(words) for x in store)
    caches = buffers if cache is None else tuple(x.view(words) for x in cache)
    lists = (pages.source_NP, pages.target_NP, pages.size_NP, pages.count_N)
    rows, width = pages.source_NP.shape
    if not width or not rows:
        return
    with device_of(buffer[0]):
        copy_page[(width, rows)](
            *stores, *caches, *buffers, *(x.contiguous() for x in lists), first,
            stores[0].shape[1], width, rows // stores[0].shape[0], buffers[0].shape[2],
            *stores[0].stride()[:2], *stores[1].stride()[:2], caches[0].stride(-2),
            caches[1].stride(-2), *buffers[0].stride()[:2], *buffers[1].stride()[:2],
            STORED=store is not None, CACHED=cache is not None, ADMIT=admit,
            BLOCK_S=pow2(pages.page), BLOCK_D=pow2(buffers[0].shape[2]), num_warps=1,
        )  # fmt: skip


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
) -> None:
    """As the reference. Host memory must be pinned: the device then reads it over the bus."""
    cached = cached_keys_VD is not None and cached_values_VD is not None
    cache = (cached_keys_VD, cached_values_VD) if cached else None
    out = (out_keys_NED, out_values_NED)
    _launch((keys_GTD, values_GTD), cache, out, pages, first, admit=False)  # type: ignore[arg-type]


def page_admit(
    keys_NED: Tensor,
    values_NED: Tensor,
    pages: Pages,
    cached_keys_VD: Tensor,
    cached_values_VD: Tensor,
) -> None:
    """As the reference."""
    cache = (cached_keys_VD, cached_values_VD)
    _launch(None, cache, (keys_NED, values_NED), pages, 0, admit=True)
