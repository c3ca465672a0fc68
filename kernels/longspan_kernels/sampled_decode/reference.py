"""Attention over sampled entries in plain torch, head by head."""

from __future__ import annotations

from math import pi
from typing import TYPE_CHECKING

import torch

from longspan_kernels.dense_decode.reference import scores, weigh
from longspan_kernels.types import Partial

if TYPE_CHECKING:
    from torch import Tensor

    from longspan_kernels.types import Runs, Sampling

LEAST_CHANCE = 1e-4
"""Added to a probability before it divides: no sampled token weighs more than its inverse."""

FAINT = 1e-4
"""Keys no farther from the mean than this share of its length are at it, their cosine 0: what
products in float32 could still tell of them is rounding."""

TINY = 1e-8
"""Vectors count as no shorter than this."""


def probability(cosine: Tensor, bits: int, tables: int) -> Tensor:
    """How likely two vectors of that cosine are to share their codes in two tables or more; in
    float64, since it is a small difference.

    One plane leaves them on one side with probability p = 1 - angle / pi, a table with p**K.
    """
    same = (1 - cosine.double().clamp(-1, 1).acos() / pi) ** bits
    others = (1 - same) ** (tables - 1)
    return (1 - others * (1 - same) - tables * same * others).clamp(0, 1)


def sampled_decode(
    q_HD: Tensor,
    keys_GTD: Tensor,
    values_GTD: Tensor,
    runs: Runs,
    sampling: Sampling,
    *,
    first: int,
    scale: float,
    softcap: float | None,
) -> Partial:
    """Attend the entries that lie in these tensors, each head's own. No shape depends on counts;
    of what is not to be read the first entry stands in, without weight.
    """
    groups, entries, _ = keys_GTD.shape
    row_HK = runs.start_NK[:, : None if entries else 0].long() - first
    inside_HK = (row_HK >= 0) & (row_HK < entries)
    live_HK = torch.arange(row_HK.shape[1], device=row_HK.device) < runs.count_N[:, None]
    partials = []
    for head, (q_D, row_K, live_K) in enumerate(
        zip(q_HD, row_HK, live_HK & inside_HK, strict=True)
    ):
        group, row_K = head * groups // len(q_HD), torch.where(live_K, row_K, 0)
        key_KD, value_KD = (rows[group, row_K].float() for rows in (keys_GTD, values_GTD))
        value_KD = torch.where(live_K[:, None], value_KD, 0.0)
        length_K = sampling.norm_GT[group, row_K].clamp(min=TINY) * q_D.float().norm().clamp(
            min=TINY
        )
        mean_D, off_K = sampling.mean_GD[group], sampling.norm_GT[group, row_K]
        cosine_K = (key_KD - mean_D) @ q_D.float() / length_K
        cosine_K = torch.where(off_K > FAINT * mean_D.norm(), cosine_K, 0.0)
        chance_K = probability(cosine_K, sampling.bits, sampling.tables).float()
        score_11K = scores(q_D[None], key_KD[None], scale, softcap)
        score_11K = score_11K - (chance_K + LEAST_CHANCE).log()
        score_11K = score_11K.masked_fill(~live_K, float("-inf"))
        partials.append(weigh(score_11K, value_KD[None]))
    return Partial(torch.cat([p.out for p in partials]), torch.cat([p.lse for p in partials]))
