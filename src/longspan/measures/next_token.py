"""What a model expects next, held against what it would expect under full attention."""

from __future__ import annotations

from math import nan
from typing import TYPE_CHECKING

import torch

from longspan.models.base import NOT_FINITE

if TYPE_CHECKING:
    from torch import Tensor


def expectation(logits_V: Tensor, full_V: Tensor, following: int | None) -> dict[str, float]:
    """By measure, from logits after the same tokens.

    `kl`: KL(full || method) of the distributions, nats; `agreement`: 1 where the likeliest token is
    the same; `nll`, `nll_full`: what the token that follows takes under each, nats, nan where none
    is known. Raises FloatingPointError where logits are NaN.
    """
    ours_V, full_V = logits_V.float().log_softmax(-1), full_V.float().log_softmax(-1)
    if ours_V.isnan().any() or full_V.isnan().any():
        raise FloatingPointError(NOT_FINITE)
    weight_V = full_V.exp()
    excess_V = torch.where(weight_V > 0, weight_V * (full_V - ours_V), 0.0)
    return {
        "kl": max(0.0, float(excess_V.sum(dtype=torch.float64))),
        "agreement": float(ours_V.argmax() == full_V.argmax()),
        "nll": nan if following is None else -float(ours_V[following]),
        "nll_full": nan if following is None else -float(full_V[following]),
    }
