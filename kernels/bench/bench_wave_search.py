"""Ranking clusters: against torch, and against what the centroids' bytes need at read bandwidth."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch
from bench_dense_decode import GROUPS, HEADS, WIDTH
from tables import Table, reader, time_together

from longspan_kernels.wave_search import wave_search

if TYPE_CHECKING:
    from collections.abc import Callable

    from tables import Settings
    from torch import Tensor


def by_torch(q_HD: Tensor, centroids_GCD: Tensor, selected: int) -> Tensor:
    """The same in torch."""
    score_GRC = q_HD.reshape(GROUPS, -1, WIDTH) @ centroids_GCD.mT
    vote_GC = torch.softmax(score_GRC.float() * WIDTH**-0.5, dim=-1).sum(1)
    return vote_GC.topk(selected, dim=1).indices


def run(settings: Settings) -> list[Table]:
    """One row a context length."""
    tokens = settings.tokens
    head = (
        "tokens", "clusters", "wave_search", "GB/s", "of read bandwidth", "torch", "faster",
    )  # fmt: skip
    table = Table("wave_search: bfloat16 centroids, 16 tokens a cluster, 25 % selected", head)
    read, size = reader()
    for length in (tokens // 4, tokens, 8 * tokens):
        clusters = length // 16
        retrieve, estimate = round(0.018 * clusters), round(0.232 * clusters)
        q_HD = torch.randn(HEADS, WIDTH).bfloat16()
        centroids_GCD = torch.randn(GROUPS, clusters, WIDTH).bfloat16()
        size_GC = torch.full((GROUPS, clusters), 16, dtype=torch.int32)
        counts = {"retrieve": retrieve, "estimate": estimate, "scale": WIDTH**-0.5}
        seconds = time_together(
            {
                "read": read,  # 256 MB: what is measured next finds nothing of its own in a cache
                "ours": partial(wave_search, q_HD, centroids_GCD, size_GC, **counts),
                "read again": read,
                "torch": partial(by_torch, q_HD, centroids_GCD, retrieve + estimate),
            },
            settings,
        )
        rate = centroids_GCD.nbytes / seconds["ours"] / 1e9
        bandwidth = size / seconds["read"] / 1e9
        table.rows.append(
            (
                f"{length:,}",
                f"{clusters:,}",
                f"{seconds['ours'] * 1e3:.2f} ms",
                f"{rate:.1f}",
                f"{rate / bandwidth:.0%} of {bandwidth:.1f}",
                f"{seconds['torch'] * 1e3:.2f} ms",
                f"{seconds['torch'] / seconds['ours']:.1f}x",
            )
        )
    return [table]


def cases(settings: Settings) -> dict[str, Callable[[], list[Table]]]:
    """See run.py."""
    return {"": partial(run, settings)}
