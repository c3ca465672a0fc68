"""One decode step held against full attention, in blocks so that any context fits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from longspan_kernels.sparse_decode.reference import run_mask

if TYPE_CHECKING:
    from torch import Tensor

    from longspan.methods.base import LayerState
    from longspan.types import Estimate, LayerGeometry, Partial, Runs

BLOCK = 32_768
"""Tokens whose keys or values are held in float32 at once."""


def compare(
    geometry: LayerGeometry, state: LayerState, q_HD: Tensor, partial: Partial, at: int
) -> dict[str, Tensor]:
    """By measure, float32 [H]; nan where a head has nothing to measure.

    `recall`: share of the exact top-`at` tokens outside the steady zone that were retrieved.
    `recovered_mass`: softmax mass of everything read exactly; `retrieved_mass`: share of the mass
    outside the steady zone that was retrieved. `estimated_mass`: mass that the summaries claim.
    `output_error`: relative error of the output, ||o - o'|| / ||o||.
    """
    selection, tokens = state.selection, len(state.store)
    score_HT = scores(geometry, state, q_HD)
    lse_H = score_HT.logsumexp(-1)
    weight_HT = (score_HT - lse_H[:, None]).exp()
    steady_T = torch.zeros(tokens, dtype=torch.bool, device=score_HT.device)
    for start, stop in selection.steady:
        steady_T[start:stop] = True
    read_HT = _reads(geometry, selection.retrieved, tokens, score_HT.device) & ~steady_T
    rest_H = (weight_HT * ~steady_T).sum(-1)
    taken_H = (weight_HT * read_HT).sum(-1)
    exact_HD = output(geometry, state, weight_HT)
    error_H = (partial.out.to(exact_HD) - exact_HD).norm(dim=-1) / exact_HD.norm(dim=-1)
    return {
        "recall": _recall(score_HT, steady_T, read_HT, at),
        "recovered_mass": taken_H + (weight_HT * steady_T).sum(-1),
        "retrieved_mass": torch.where(steady_T.all(), torch.nan, taken_H / rest_H),
        "estimated_mass": _estimated(geometry, selection.estimated, q_HD, lse_H),
        "output_error": error_H,
    }


def scores(geometry: LayerGeometry, state: LayerState, q_HD: Tensor) -> Tensor:
    """Exact scaled, soft-capped scores, float32 [H, T] in slot order."""
    blocks = []
    for start in range(0, len(state.store), BLOCK):
        for part in state.store.slices(start, min(start + BLOCK, len(state.store))):
            blocks.append(_scores(geometry, q_HD, part.keys_GTD))
    return torch.cat(blocks, dim=-1)


def output(geometry: LayerGeometry, state: LayerState, weight_HT: Tensor) -> Tensor:
    """The values' mean under the weights, float32 [H, D]."""
    weight_GRT = weight_HT.reshape(geometry.kv_heads, -1, weight_HT.shape[-1])
    total_GRD = weight_HT.new_zeros(*weight_GRT.shape[:2], geometry.head_size)
    for start in range(0, len(state.store), BLOCK):
        for part in state.store.slices(start, min(start + BLOCK, len(state.store))):
            values_GTD = part.values_GTD.to(weight_HT)
            total_GRD += weight_GRT[..., part.first : part.stop] @ values_GTD
    return total_GRD.flatten(0, 1)


def _scores(geometry: LayerGeometry, q_HD: Tensor, keys_GTD: Tensor) -> Tensor:
    q_GRD = q_HD.reshape(geometry.kv_heads, -1, geometry.head_size).float()
    keys_GDT = keys_GTD.to(q_HD.device).float().transpose(1, 2)
    score_HT = (q_GRD @ keys_GDT).flatten(0, 1) * geometry.scale
    cap = geometry.softcap
    return score_HT if cap is None else cap * torch.tanh(score_HT / cap)


def _reads(
    geometry: LayerGeometry, runs: Runs | None, entries: int, device: torch.device
) -> Tensor:
    """Bool [H, entries]: what the runs cover, for every query head."""
    if runs is None:
        return torch.zeros(geometry.query_heads, entries, dtype=torch.bool, device=device)
    mask_NT = run_mask(runs, entries).to(device)
    return mask_NT.repeat_interleave(geometry.query_heads // mask_NT.shape[0], dim=0)


def _recall(score_HT: Tensor, steady_T: Tensor, read_HT: Tensor, at: int) -> Tensor:
    wanted = min(at, int((~steady_T).sum()))
    if wanted == 0:
        return score_HT.new_full((score_HT.shape[0],), torch.nan)
    best_HK = score_HT.masked_fill(steady_T, -torch.inf).topk(wanted).indices
    return read_HT.gather(1, best_HK).float().mean(-1)


def _estimated(
    geometry: LayerGeometry, estimate: Estimate | None, q_HD: Tensor, lse_H: Tensor
) -> Tensor:
    if estimate is None:
        return torch.zeros_like(lse_H)
    score_HC = _scores(geometry, q_HD, estimate.keys_GCD)
    heads = geometry.query_heads // geometry.kv_heads
    bias_HC = estimate.bias_GC.to(score_HC).repeat_interleave(heads, dim=0)
    used_HC = _reads(geometry, estimate.ids, score_HC.shape[1], score_HC.device)
    claim_HC = (score_HC + bias_HC - lse_H[:, None]).exp()
    return (claim_HC * used_HC).sum(-1)
