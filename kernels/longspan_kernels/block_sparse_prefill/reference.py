"""Prefill attention to chosen blocks and columns, slow and obvious."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from longspan_kernels.types import Partial

if TYPE_CHECKING:
    from torch import Tensor


def seen(
    blocks_HXY: Tensor,
    columns_HT: Tensor | None,
    positions: int,
    entries: int,
    *,
    block: int,
    causal: bool,
) -> Tensor:
    """Bool [H, Q, T]: which position attends which entry."""
    device = blocks_HXY.device
    row_Q = torch.arange(positions, device=device)
    entry_T = torch.arange(entries, device=device)
    mask_HQT = blocks_HXY[:, row_Q // block][:, :, entry_T // block]
    if columns_HT is not None:
        mask_HQT = mask_HQT | columns_HT[:, None]
    if causal:
        mask_HQT = mask_HQT & (entry_T <= row_Q[:, None] + entries - positions)
    return mask_HQT


def block_sparse_prefill(
    q_HQD: Tensor,
    keys_GTD: Tensor,
    values_GTD: Tensor,
    blocks_HXY: Tensor,
    *,
    columns_HT: Tensor | None = None,
    block: int = 64,
    scale: float,
    softcap: float | None = None,
    causal: bool,
) -> Partial:
    """Dense attention under the mask; see the package for the arguments."""
    groups, entries, size = keys_GTD.shape
    heads, positions, _ = q_HQD.shape
    q_GRQD = q_HQD.reshape(groups, heads // groups, positions, size).float()
    score_HQT = torch.einsum("grqd,gtd->grqt", q_GRQD, keys_GTD.float()).flatten(0, 1) * scale
    if softcap is not None:
        score_HQT = softcap * torch.tanh(score_HQT / softcap)
    mask_HQT = seen(blocks_HXY, columns_HT, positions, entries, block=block, causal=causal)
    score_HQT = score_HQT.masked_fill(~mask_HQT, float("-inf"))
    lse_HQ = torch.logsumexp(score_HQT, dim=-1)
    # where nothing is attended the difference is NaN and the weight nothing
    weight_HQT = torch.exp(score_HQT - lse_HQ[..., None]).masked_fill(~mask_HQT, 0.0)
    weight_GRQT = weight_HQT.reshape(groups, heads // groups, positions, entries)
    out_GRQD = torch.einsum("grqt,gtd->grqd", weight_GRQT, values_GTD.float())
    return Partial(out_GRQD.flatten(0, 1), lse_HQ)
