"""The slow, obvious attention over a list of runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from longspan_kernels.dense_decode.reference import scores, weigh

if TYPE_CHECKING:
    from torch import Tensor

    from longspan_kernels.types import Partial, Runs


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
    key_scale_GT: Tensor | None = None,
    value_scale_GT: Tensor | None = None,
    first: int = 0,
) -> Partial:
    """Attend one query position to the entries that `runs` names; see the package."""
    score_GRT = scores(q_HD, keys_GTD, scale, softcap, key_scale_GT)
    if bias_GT is not None:
        score_GRT = score_GRT + bias_GT.float()[:, None]
    mask_NT = run_mask(runs, score_GRT.shape[-1], first)
    mask_GRT = mask_NT.reshape(score_GRT.shape[0], -1, score_GRT.shape[-1])
    score_GRT = score_GRT.masked_fill(~mask_GRT, float("-inf"))
    return weigh(score_GRT, values_GTD, value_scale_GT)
