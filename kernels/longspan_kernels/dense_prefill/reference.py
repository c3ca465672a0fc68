"""Attention of many query positions, slow and obvious."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from longspan_kernels.types import Partial

if TYPE_CHECKING:
    from torch import Tensor


def dense_prefill(
    q_HQD: Tensor,
    keys_GTD: Tensor,
    values_GTD: Tensor,
    *,
    scale: float,
    softcap: float | None = None,
    causal: bool,
) -> Partial:
    """Attend Q positions to T entries: all of them, or, `causal`, position i to the entries up to
    i + T - Q.

    Raises ValueError where `causal` leaves the first positions without an entry (T < Q).
    """
    groups, entries, size = keys_GTD.shape
    heads, positions, _ = q_HQD.shape
    if causal and entries < positions:
        raise ValueError(
            f"causal prefill has {positions} queries but {entries} keys; it should have at least"
            " as many keys as queries"
        )
    q_GRQD = q_HQD.reshape(groups, heads // groups, positions, size).float()
    score_GRQT = torch.einsum("grqd,gtd->grqt", q_GRQD, keys_GTD.float()) * scale
    if softcap is not None:
        score_GRQT = softcap * torch.tanh(score_GRQT / softcap)
    if causal:
        future_QT = torch.ones(positions, entries, dtype=torch.bool, device=q_HQD.device)
        future_QT = future_QT.triu(1 + entries - positions)
        score_GRQT = score_GRQT.masked_fill(future_QT, float("-inf"))
    lse_GRQ = torch.logsumexp(score_GRQT, dim=-1)
    weight_GRQT = torch.exp(score_GRQT - lse_GRQ[..., None]).nan_to_num(0.0)
    out_GRQD = torch.einsum("grqt,gtd->grqd", weight_GRQT, values_GTD.float())
    return Partial(out_GRQD.flatten(0, 1), lse_GRQ.flatten(0, 1))
