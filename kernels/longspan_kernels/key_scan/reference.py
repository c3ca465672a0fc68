"""The scan in plain torch, on any device; the definition."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

BLOCK = 8192
"""Codes are widened so many tokens at a time."""
WIDE = {"cpu": torch.float64}
"""What holds the sums: whole numbers exactly, but on a GPU, where float32 rounds the largest."""
LEAST = 1e-30
"""Of a weight: below it all are 0, as their unit would lose its digits."""
MOST, SUM = 32767.0, 16777216.0
"""Of a weight, and of a weight times the columns: sums of as many products stay within 31 bits."""


def quantised(weights_HW: Tensor) -> tuple[Tensor, Tensor]:
    """Whole numbers as floats [H, W] of 16 bits, and their units, float32 [H]."""
    limit = min(MOST, SUM / weights_HW.shape[1])
    largest_H = weights_HW.abs().amax(1)
    unit_H = torch.where(largest_H > LEAST, largest_H / limit, 1.0)
    return (weights_HW / unit_H[:, None]).round(), unit_H


def best_keys(
    q_HD: Tensor,
    weights: Sequence[Tensor],
    codes: Sequence[Tensor],
    k: int,
    candidates: int,
    keys_GTDs: Sequence[Tensor],
) -> Tensor:
    """See `longspan_kernels.key_scan.best_keys`; weights float32 [H, W] and codes a stretch."""
    score_HT = scores(weights, codes)
    token_T = torch.arange(score_HT.shape[1], device=q_HD.device)
    found_HC = ranked(score_HT, token_T.expand_as(score_HT), candidates)
    if keys_GTDs:
        found_HC = ranked(products(q_HD, keys_GTDs, found_HC), found_HC, k)
    return found_HC[:, :k].int()


def scores(weights: Sequence[Tensor], codes: Sequence[Tensor]) -> Tensor:
    """float32 [H, T]: of every key's code."""
    parts = []
    for weights_HW, code_GTW in zip(weights, codes, strict=True):
        wide = WIDE.get(weights_HW.device.type, torch.float32)
        whole_HW, unit_H = quantised(weights_HW)
        whole_GRW = whole_HW.to(wide).view(len(code_GTW), -1, whole_HW.shape[1])
        parts += [
            (whole_GRW @ part_GTW.to(wide).mT).flatten(0, 1).float() * unit_H[:, None]
            for part_GTW in torch.split(code_GTW, BLOCK, dim=1)
        ]
    return torch.cat(parts, dim=1)


def ranked(score_HN: Tensor, token_HN: Tensor, count: int) -> Tensor:
    """int64 [H, count]: the tokens of the largest scores, equal ones by falling number."""
    bits_HN = score_HN.contiguous().view(torch.int32)
    order_HN = torch.where(bits_HN < 0, bits_HN ^ 0x7FFFFFFF, bits_HN).long()
    key_HN = (order_HN << 32) + token_HN
    return key_HN.topk(count, dim=1).values & 0xFFFFFFFF


def products(q_HD: Tensor, keys_GTDs: Sequence[Tensor], token_HC: Tensor) -> Tensor:
    """float32 [H, C]: of each query with these keys of its KV head."""
    heads, count = token_HC.shape
    score_HC = torch.zeros(heads, count, device=q_HD.device)
    first = 0
    for keys_GTD in keys_GTDs:
        groups, tokens, size = keys_GTD.shape
        at_HC = token_HC - first
        inside_HC = (at_HC >= 0) & (at_HC < tokens)
        at_GN = at_HC.clamp(0, tokens - 1).reshape(groups, -1)
        rows_HCD = keys_GTD.gather(1, at_GN[..., None].expand(-1, -1, size)).float()
        found_HC = (rows_HCD.view(heads, count, size) @ q_HD[:, :, None])[..., 0]
        score_HC = torch.where(inside_HC, found_HC, score_HC)
        first += tokens
    return score_HC
