"""The scan on the native kernels."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

import torch

from longspan_kernels.dispatch import native, not_plain, thread_count

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


def obstacle(q_HD: Tensor, codes: Sequence[Tensor], keys_GTDs: Sequence[Tensor]) -> str | None:
    """Why the kernel cannot take these; None if it can."""
    if any(keys_GTD.stride(2) != 1 for keys_GTD in keys_GTDs):
        return "the elements of a key are not adjacent"
    return not_plain(chain([q_HD], codes, keys_GTDs))


def best_keys(
    q_HD: Tensor,
    weights: Sequence[Tensor],
    codes: Sequence[Tensor],
    k: int,
    candidates: int,
    keys_GTDs: Sequence[Tensor],
    *,
    threads: int | None,
    isa: str,
) -> Tensor:
    """As the reference, but for the rounding of the exact products."""
    ids_HK = torch.empty(len(q_HD), k, dtype=torch.int32)
    native.key_scan(
        [code_GTW.contiguous() for code_GTW in codes],
        [weights_HW.contiguous() for weights_HW in weights],
        q_HD.contiguous(),
        list(keys_GTDs),
        candidates,
        ids_HK,
        thread_count(threads),
        isa,
    )
    return ids_HK
