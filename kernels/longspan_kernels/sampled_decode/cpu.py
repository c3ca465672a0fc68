"""Attention over sampled entries on the native kernel."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from longspan_kernels.dispatch import native, thread_count
from longspan_kernels.sampled_decode.reference import FAINT, LEAST_CHANCE
from longspan_kernels.types import Partial

if TYPE_CHECKING:
    from torch import Tensor

    from longspan_kernels.types import Runs, Sampling


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
    threads: int | None,
    isa: str,
) -> Partial:
    """As the reference; a cosine is of q.k less the query's product with the mean key."""
    q_GRD = q_HD.float().reshape(len(keys_GTD), -1, q_HD.shape[1])
    faint_G = FAINT * sampling.mean_GD.norm(dim=-1)
    out_HD = torch.empty(q_HD.shape, dtype=torch.float32)
    lse_H = torch.empty(q_HD.shape[0], dtype=torch.float32)
    native.sampled_decode(
        q_HD,
        keys_GTD,
        values_GTD,
        runs.start_NK.contiguous(),
        runs.count_N.contiguous(),
        sampling.norm_GT,
        q_GRD.norm(dim=-1).flatten(),
        (q_GRD @ sampling.mean_GD[..., None]).flatten(),
        faint_G.repeat_interleave(q_GRD.shape[1]),
        sampling.bits,
        sampling.tables,
        LEAST_CHANCE,
        first,
        scale,
        softcap or 0.0,
        out_HD,
        lse_H,
        thread_count(threads),
        isa,
    )
    return Partial(out_HD, lse_H)
