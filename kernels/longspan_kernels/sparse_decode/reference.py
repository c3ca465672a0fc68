"""The slow, obvious attention over a list of runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from longspan_kernels.dense_decode.reference import scores
from longspan_kernels.types import Partial, Runs

if TYPE_CHECKING:
    from torch import Tensor


def run_mask(runs: Runs, entries: int, first: int = 0) -> Tensor:
    """Bool [N, entries]: which of the entries [first, first + entries) the runs cover."""
    rows, width = runs.start_NK.shape
    live_NK = torch.arange(width, device=runs.start_NK.device) < runs.count_N[:, None]
    size_NK = torch.ones_like(runs.start_NK) if runs.size_NK is None else runs.size_NK
    begin_NK = (runs.start_NK.long() - first).clamp(0, entries)
    end_NK = (runs.start_NK.long() + size_NK - first).clamp(0, entries)
    steps = torch.zeros(rows, entries + 1, dtype=torch.int32, device=runs.start_NK.device)
    steps.scatter_add_(1, torch.where(live_NK, begin_NK, entries), live_NK.int())
    steps.scatter_add_(1, torch.where(live_NK, end_NK, entries), -live_NK.int())
    return steps.cumsum(1)[:, :entries] > 0


def sparse_decode(
    q_HD: Tensor,
    keys_GTD: Tensor,
    values_GTD: Tensor,
    runs: Runs,
    *,
    scale: float,
    softcap: float | None = None,
    bias_GT: Tensor | None = None,
    first: int = 0,
) -> Partial:
    """Attend one query position to the entries that `runs` names; entry t of the tensors is number
    first + t.

    Runs, or parts of them, outside [first, first + T) are ignored, so that a store of several parts
    is attended by one
    call a part. Row n of the runs serves KV head n where N = G, query head n where N = H.
    """
    score_GRT = scores(q_HD, keys_GTD, scale, softcap)
    if bias_GT is not None:
        score_GRT = score_GRT + bias_GT.float()[:, None]
    groups, heads_a_group, entries = score_GRT.shape
    mask_NT = run_mask(runs, entries, first)
    if mask_NT.shape[0] == groups:
        mask_GRT = mask_NT[:, None].expand(-1, heads_a_group, -1)
    elif mask_NT.shape[0] == groups * heads_a_group:
        mask_GRT = mask_NT.reshape(groups, heads_a_group, entries)
    else:
        right = f"{groups} (KV heads) or {groups * heads_a_group} (query heads)"
        raise ValueError(f"runs have {mask_NT.shape[0]} rows; right is {right}")
    score_GRT = score_GRT.masked_fill(~mask_GRT, float("-inf"))
    lse_GR = torch.logsumexp(score_GRT, dim=-1)
    weight_GRT = torch.exp(score_GRT - lse_GR[..., None]).nan_to_num(0.0)
    out_GRD = torch.einsum("grt,gtd->grd", weight_GRT, values_GTD.float())
    return Partial(out_GRD.flatten(0, 1), lse_GR.flatten())
