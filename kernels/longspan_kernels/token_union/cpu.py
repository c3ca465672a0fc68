"""The union on the native kernels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from longspan_kernels.dispatch import native, thread_count
from longspan_kernels.token_union.reference import BEYOND, United

if TYPE_CHECKING:
    from torch import Tensor


def token_union(
    token_HK: Tensor,
    count_H: Tensor,
    place_GT: Tensor,
    size_GC: Tensor,
    *,
    threads: int | None,
    isa: str,
) -> United:
    """As the reference."""
    groups = len(place_GT)
    place_GK = torch.full((groups, token_HK.numel() // groups), BEYOND, dtype=torch.int32)
    count_G = torch.empty(groups, dtype=torch.int32)
    left_GC = torch.empty(size_GC.shape, dtype=torch.int32)
    native.token_union(
        token_HK.contiguous(),
        count_H.contiguous(),
        place_GT.contiguous(),
        size_GC.contiguous(),
        place_GK,
        count_G,
        left_GC,
        thread_count(threads),
        isa,
    )
    return United(place_GK, count_G, left_GC)
