"""Product quantisation on the native kernels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from longspan_kernels.dispatch import native, not_plain, thread_count
from longspan_kernels.product_codes.reference import tables

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from longspan_kernels.types import Coded, Sharing


def search_obstacle(q_HD: Tensor, coded: Sequence[Coded]) -> str | None:
    """Why the kernel cannot take these; None if it can."""
    if not bool(q_HD.isfinite().all()):  # the reference ranks what it can
        return "q holds NaN or infinity"
    return not_plain([q_HD, *(tensor for each in coded for tensor in each)])


def train(
    keys_GSD: Tensor, parts: int, clusters: int, rounds: int, *, threads: int | None, isa: str
) -> Tensor:
    """As the reference, but for the rounding of sums."""
    groups, _, width = keys_GSD.shape
    centroids_GPCE = torch.empty(groups, parts, clusters, width // parts)
    native.code_train(keys_GSD, rounds, centroids_GPCE, thread_count(threads), isa)
    return centroids_GPCE


def encode(keys_GTD: Tensor, centroids_GPCE: Tensor, *, threads: int | None, isa: str) -> Tensor:
    """As the reference, but where two centroids are as near but for rounding."""
    groups, tokens, _ = keys_GTD.shape
    code_GPT = torch.empty(groups, centroids_GPCE.shape[1], tokens, dtype=torch.uint8)
    native.code_encode(keys_GTD, centroids_GPCE.contiguous(), code_GPT, thread_count(threads), isa)
    return code_GPT


def best_tokens(
    q_HD: Tensor,
    coded: Sequence[Coded],
    wanted: int,
    scale: float,
    share: Sharing,
    *,
    threads: int | None,
    isa: str,
) -> Tensor:
    """As the reference, but ascending."""
    heads, groups = q_HD.shape[0], coded[0].code_GPT.shape[0]
    table_GPCRs = [tables(q_HD.float() * scale, each.centroids_GPCE) for each in coded]
    if share == "query_head":  # a row of one head each
        table_GPCRs = [
            table_GPCR.permute(0, 3, 1, 2).flatten(0, 1)[..., None] for table_GPCR in table_GPCRs
        ]
    found_NK = torch.empty(heads if share == "query_head" else groups, wanted, dtype=torch.int32)
    native.code_search(
        [table_NPCR.contiguous() for table_NPCR in table_GPCRs],
        [each.code_GPT.contiguous() for each in coded],
        found_NK,
        thread_count(threads),
        isa,
    )
    return found_NK
