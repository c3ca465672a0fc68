"""Hash tables on the native kernels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from longspan_kernels.dispatch import native, thread_count
from longspan_kernels.types import HashTables, Runs

if TYPE_CHECKING:
    from torch import Tensor


def hash_build(
    keys_GTD: Tensor, mean_GD: Tensor, planes_LDK: Tensor, *, threads: int | None, isa: str
) -> HashTables:
    """As the reference, but for keys so near to a plane that rounding decides."""
    (groups, tokens, _), (tables, _, bits) = keys_GTD.shape, planes_LDK.shape
    built = HashTables(
        torch.empty(groups, tables, tokens, dtype=torch.int32),
        torch.empty(groups, tables, 2**bits + 1, dtype=torch.int32),
    )
    native.hash_build(
        keys_GTD, mean_GD.contiguous(), planes_LDK.contiguous(), *built, thread_count(threads), isa
    )
    return built


def hash_search(
    code_HL: Tensor, tables: HashTables, first: int, *, threads: int | None, isa: str
) -> tuple[Runs, int]:
    """As the reference."""
    count_H = torch.empty(len(code_HL), dtype=torch.int32)
    found_HK, read = native.hash_search(
        code_HL.contiguous(), *tables, count_H, thread_count(threads), isa
    )
    return Runs(found_HK + first, None, count_H), read
