"""Hash tables of random hyperplanes over keys: building and searching; see README.md."""

from __future__ import annotations

from typing import TYPE_CHECKING

from longspan_kernels.dense_decode.cpu import rows_obstacle
from longspan_kernels.dispatch import not_plain, path
from longspan_kernels.hash_tables import cpu, reference
from longspan_kernels.on_gpu import triton_serves

if TYPE_CHECKING:
    from torch import Tensor

    from longspan_kernels.dispatch import Backend
    from longspan_kernels.types import HashTables, Runs

__all__ = ["MOST_BITS", "codes", "hash_build", "hash_search"]

MOST_BITS = 16
"""Every table knows where the keys of each code begin."""


def codes(vector_ND: Tensor, planes_LDK: Tensor, *, backend: Backend = "auto") -> Tensor:
    """int32 [L, N]: bit k says on which side of plane k of a table a vector lies.

    On a CPU torch's product, where there is no more to gain.
    """
    if triton_serves(backend, (vector_ND,), (planes_LDK,)):
        from longspan_kernels.hash_tables import triton

        return triton.codes(vector_ND, planes_LDK)
    return reference.codes(vector_ND, planes_LDK)


def hash_build(
    keys_GTD: Tensor,
    mean_GD: Tensor,
    planes_LDK: Tensor,
    *,
    backend: Backend = "auto",
    threads: int | None = None,
) -> HashTables:
    """The tokens of each KV head by the code of their keys, less `mean_GD`, in each of L tables of
    K hyperplanes through the origin.

    Charikar, "Similarity Estimation Techniques from Rounding Algorithms", STOC 2002. Raises
    ValueError naming what does not fit.
    """
    (groups, _, width), (_, size, bits) = keys_GTD.shape, planes_LDK.shape
    if size != width or mean_GD.shape != (groups, width):
        raise ValueError(
            f"keys have shape {list(keys_GTD.shape)}, their means {list(mean_GD.shape)} and planes"
            f" {list(planes_LDK.shape)}; it should be [G, T, D], [G, D] and [L, D, K]"
        )
    if not 1 <= bits <= MOST_BITS:
        raise ValueError(f"a table has {bits} planes; it should have 1 to {MOST_BITS}")
    if triton_serves(backend, (keys_GTD,), (mean_GD, planes_LDK)):
        from longspan_kernels.hash_tables import triton

        return triton.hash_build(keys_GTD, mean_GD, planes_LDK)
    isa = path(backend, rows_obstacle(keys_GTD) or not_plain((mean_GD, planes_LDK)))
    if isa is None:
        return reference.hash_build(keys_GTD, mean_GD, planes_LDK)
    return cpu.hash_build(keys_GTD, mean_GD, planes_LDK, threads=threads, isa=isa)


def hash_search(
    code_HL: Tensor,
    tables: HashTables,
    *,
    first: int = 0,
    whole: bool = False,
    backend: Backend = "auto",
    threads: int | None = None,
) -> tuple[Runs, int | Tensor]:
    """The tokens that share the code of a query head in two tables or more, ascending, a row a
    query head; and how many entries of the tables were read, all heads together.

    `code_HL` (int32) is `codes` of the queries, transposed. Token t is number first + t. `whole`:
    rows have room for all tokens, whatever is found, what was read is a tensor, and the host waits
    for nothing; the Triton kernels always do so. MagicPIG, arXiv 2410.16179.
    """
    groups, count, _ = tables.token_GLT.shape
    if code_HL.dim() != 2 or code_HL.shape[1] != count or code_HL.shape[0] % groups:
        raise ValueError(
            f"codes have shape {list(code_HL.shape)}; it should be [a multiple of {groups},"
            f" {count}]"
        )
    if triton_serves(backend, (), (code_HL, *tables)):
        from longspan_kernels.hash_tables import triton

        return triton.hash_search(code_HL, tables, first)
    obstacle = "a native row is as long as what was found" if whole else None
    isa = path(backend, obstacle or not_plain((code_HL, *tables)))
    if isa is None and whole:
        return reference.hash_search_whole(code_HL, tables, first)
    if isa is None:
        return reference.hash_search(code_HL, tables, first)
    return cpu.hash_search(code_HL, tables, first, threads=threads, isa=isa)
