"""The operation `token_union`: what the query heads of a group found, read by all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from longspan_kernels.dispatch import not_plain, path
from longspan_kernels.token_union import cpu, reference
from longspan_kernels.token_union.reference import United

if TYPE_CHECKING:
    from torch import Tensor

    from longspan_kernels.dispatch import Backend

__all__ = ["United", "token_union"]


def token_union(
    token_HK: Tensor,
    count_H: Tensor,
    place_GT: Tensor,
    size_GC: Tensor,
    *,
    backend: Backend = "auto",
    threads: int | None = None,
) -> United:
    """The first count_H[h] tokens of each head, all heads of a group together, each once.

    All int32. place_GT: where each token lies in the order of the clusters, which hold every token
    once and follow one another, size_GC[g, c] tokens each.
    """
    isa = path(backend, not_plain((token_HK, count_H, place_GT, size_GC)))
    if isa is None:
        return reference.token_union(token_HK, count_H, place_GT, size_GC)
    return cpu.token_union(token_HK, count_H, place_GT, size_GC, threads=threads, isa=isa)
