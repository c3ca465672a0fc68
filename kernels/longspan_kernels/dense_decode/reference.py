"""The slow, obvious dense decode attention."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from longspan_kernels.types import Partial

if TYPE_CHECKING:
    from torch import Tensor


def scores(
    q_HD: Tensor,
    keys_GTD: Tensor,
    scale: float,
    softcap: float | None,
    key_scale_GT: Tensor | None = None,
) -> Tensor:
    """Scaled, soft-capped scores, float32 [G, R, T]; query head h = g * R + r reads KV head g."""
    groups = keys_GTD.shape[0]
    q_GRD = q_HD.reshape(groups, -1, q_HD.shape[-1]).float()
    score_GRT = torch.einsum("grd,gtd->grt", q_GRD, keys_GTD.float()) * scale
    if key_scale_GT is not None:
        score_GRT = score_GRT * key_scale_GT[:, None]
    return score_GRT if softcap is None else softcap * torch.tanh(score_GRT / softcap)


def weigh(score_GRT: Tensor, values_GTD: Tensor, value_scale_GT: Tensor | None = None) -> Partial:
    """Softmax over the last axis of `score_GRT` and the weighted mean of the values."""
    lse_GR = torch.logsumexp(score_GRT, dim=-1)
    # where every score is -inf the difference is NaN and the weight nothing
    empty_GR1 = torch.isneginf(lse_GR)[..., None]
    weight_GRT = torch.exp(score_GRT - lse_GR[..., None]).masked_fill(empty_GR1, 0.0)
    if value_scale_GT is not None:
        weight_GRT = weight_GRT * value_scale_GT[:, None]
    out_GRD = torch.einsum("grt,gtd->grd", weight_GRT, values_GTD.float())
    return Partial(out_GRD.flatten(0, 1), lse_GR.flatten())


def dense_decode(
    q_HD: Tensor,
    keys_GTD: Tensor,
    values_GTD: Tensor,
    *,
    scale: float,
    softcap: float | None = None,
    bias_GT: Tensor | None = None,
    key_scale_GT: Tensor | None = None,
    value_scale_GT: Tensor | None = None,
) -> Partial:
    """Attend one query position to all T entries; see the package for the arguments."""
    score_GRT = scores(q_HD, keys_GTD, scale, softcap, key_scale_GT)
    if bias_GT is not None:
        score_GRT = score_GRT + bias_GT.float()[:, None]
    return weigh(score_GRT, values_GTD, value_scale_GT)
