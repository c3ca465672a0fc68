"""From logits to the distribution that is drawn from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor


def probabilities(
    logits_BV: Tensor, temperature: float, top_k: int = 0, top_p: float = 1.0, min_p: float = 0.0
) -> Tensor:
    """Softmax at `temperature`, then top-k, top-p and min-p in that order, each on what the last
    has left.

    Float32 [B, V]; tokens that are filtered out have probability 0. At least the likeliest token
    stays.
    """
    score_BV = logits_BV.float()
    # the likeliest scores 0, which no temperature makes infinite
    score_BV = score_BV - score_BV.amax(-1, keepdim=True)
    score_BV = score_BV / max(temperature, torch.finfo(torch.float32).tiny)
    if 0 < top_k < score_BV.shape[-1]:
        least_B1 = score_BV.topk(top_k).values[:, -1:]
        score_BV = score_BV.masked_fill(score_BV < least_B1, float("-inf"))
    p_BV = score_BV.softmax(-1)
    if top_p < 1:
        falling_BV, order_BV = p_BV.sort(descending=True, stable=True)
        # a token stays where those before it do not reach top_p
        out_BV = falling_BV.cumsum(-1) - falling_BV >= top_p
        p_BV = p_BV.masked_fill(out_BV.scatter(-1, order_BV, out_BV), 0.0)
        p_BV = p_BV / p_BV.sum(-1, keepdim=True)
    if min_p > 0:
        p_BV = p_BV.masked_fill(p_BV < min_p * p_BV.amax(-1, keepdim=True), 0.0)
        p_BV = p_BV / p_BV.sum(-1, keepdim=True)
    return p_BV
