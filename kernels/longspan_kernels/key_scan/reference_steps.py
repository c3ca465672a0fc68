"""The scan of a step in plain torch, on any device; the definition."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from longspan_kernels.key_scan.reference import quantised

if TYPE_CHECKING:
    from torch import Tensor

    from longspan_kernels.key_scan.steps import Candidates, SlotCodes

BLOCK = 1024
"""Tokens that are given their stretch's weights at a time."""
LAST = -(1 << 63)
"""Orders what is not there behind every score; its low half is slot 0."""


def best_slots(q_XD: Tensor, codes: SlotCodes, most: int, candidates: Candidates | None) -> Tensor:
    """See `longspan_kernels.key_scan.steps.best_slots`."""
    rows, room = codes.stretch_BT.shape
    heads = len(q_XD) // rows
    token_T = torch.arange(room, device=q_XD.device)
    slot_BT = codes.first_B[:, None] + token_T
    there_BT = token_T < codes.tokens_B[:, None]
    slot_XT, there_XT = (_spread(each, heads) for each in (slot_BT, there_BT))
    order_XT = ordered(scores(q_XD, codes), slot_XT, there_XT)
    found_XC = order_XT.topk(most if candidates is None else candidates.most, dim=1).values
    if candidates is not None:
        slot_XC = found_XC & 0xFFFFFFFF
        rank_C = torch.arange(candidates.most, device=q_XD.device)
        counted_BC = rank_C < candidates.count_B[:, None]
        score_XC = products(q_XD, candidates.keys_NCD, slot_XC)
        found_XC = ordered(score_XC, slot_XC, _spread(counted_BC, heads)).topk(most, dim=1).values
    return (found_XC & 0xFFFFFFFF).int()


def scores(q_XD: Tensor, codes: SlotCodes) -> Tensor:
    """float32 [X, T]: of every token's code, the sums exact."""
    (rows, room), (heads, stretches, _) = codes.stretch_BT.shape, codes.step_NSW.shape
    y_NRW = q_XD.float().view(heads, -1, q_XD.shape[1]) @ codes.to_queries_NDW
    weight_NSRW = y_NRW[:, None] * codes.step_NSW[:, :, None]
    whole_YW, unit_Y = quantised(weight_NSRW.flatten(0, 2))
    whole_NSRW = whole_YW.int().view(weight_NSRW.shape)
    unit_NSR = unit_Y.view(heads, stretches, -1)
    parts = []
    for first in range(0, room, BLOCK):
        stretch_NT = _spread(codes.stretch_BT[:, first : first + BLOCK], heads // rows)
        product_NTRW = _picked(whole_NSRW, stretch_NT)
        product_NTRW *= codes.code_NTW[:, first : first + BLOCK, None]
        sum_NTR = product_NTRW.sum(-1, dtype=torch.int32)
        parts.append(sum_NTR.float() * _picked(unit_NSR, stretch_NT))
    return torch.cat(parts, 1).mT.flatten(0, 1)


def ordered(score_XN: Tensor, slot_XN: Tensor, there_XN: Tensor) -> Tensor:
    """int64: numbers that order what is there by score, then slot, which is their low half."""
    bits_XN = score_XN.contiguous().view(torch.int32)
    bits_XN = torch.where(bits_XN < 0, bits_XN ^ 0x7FFFFFFF, bits_XN).long()
    return torch.where(there_XN, (bits_XN << 32) + slot_XN, LAST)


def products(q_XD: Tensor, keys_NCD: Tensor, slot_XC: Tensor) -> Tensor:
    """float32 [X, C]: of each query with the keys of its KV head in these slots."""
    key_NYD = _picked(keys_NCD, slot_XC.view(len(keys_NCD), -1)).float()
    key_XCD = key_NYD.view(*slot_XC.shape, keys_NCD.shape[2])
    return (key_XCD @ q_XD.float()[:, :, None])[..., 0]


def _picked(rows_NS: Tensor, number_NT: Tensor) -> Tensor:
    """Rows [N, T, ..] of a head's [N, S, ..]."""
    heads, some = rows_NS.shape[:2]
    first_N1 = some * torch.arange(heads, device=rows_NS.device)[:, None]
    picked = rows_NS.flatten(0, 1).index_select(0, (first_N1 + number_NT).flatten())
    return picked.view(*number_NT.shape, *rows_NS.shape[2:])


def _spread(each_BT: Tensor, times: int) -> Tensor:
    rows = len(each_BT)
    return each_BT.repeat_interleave(times, 0, output_size=rows * times)
