"""Prefill attention block by block, for any device, dtype and soft cap."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from longspan_kernels.dense_prefill import reference
from longspan_kernels.merge import merge
from longspan_kernels.types import Partial

if TYPE_CHECKING:
    from torch import Tensor

BLOCK = 1024
"""Positions and entries of a block; H x BLOCK x BLOCK scores are held at once."""


def dense_prefill(
    q_HQD: Tensor,
    keys_GTD: Tensor,
    values_GTD: Tensor,
    *,
    scale: float,
    softcap: float | None = None,
    causal: bool,
) -> Partial:
    """As the reference, merging blocks; blocks that lie in the future are not computed."""
    if 0 in (q_HQD.shape[1], keys_GTD.shape[1]):  # there are no blocks
        return reference.dense_prefill(
            q_HQD, keys_GTD, values_GTD, scale=scale, softcap=softcap, causal=causal
        )
    past = keys_GTD.shape[1] - q_HQD.shape[1]
    rows: list[Partial] = []
    for first in range(0, q_HQD.shape[1], BLOCK):
        q_block = q_HQD[:, first : first + BLOCK]
        seen = first + past if causal else keys_GTD.shape[1]
        blocks = [(begin, min(begin + BLOCK, seen)) for begin in range(0, seen, BLOCK)]
        if causal:  # the last block is the diagonal one
            blocks.append((seen, seen + q_block.shape[1]))
        total: list[Partial] = []
        for begin, end in blocks:
            part = reference.dense_prefill(
                q_block,
                keys_GTD[:, begin:end],
                values_GTD[:, begin:end],
                scale=scale,
                softcap=softcap,
                causal=causal and begin == seen,
            )
            total = [merge([*total, part])]
        rows.extend(total)
    return Partial(torch.cat([r.out for r in rows], dim=1), torch.cat([r.lse for r in rows], dim=1))
