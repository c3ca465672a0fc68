"""Sparse decode attention: clusters and scattered tokens, against gathering them in torch and
against what their bytes need at read bandwidth.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch
from bench_dense_decode import GROUPS, HEADS, WIDTH, fused
from tables import Table, reader, time_together

from longspan_kernels.sparse_decode import sparse_decode
from longspan_kernels.types import Runs

if TYPE_CHECKING:
    from collections.abc import Callable

    from tables import Settings
    from torch import Tensor

BUDGET = 64
"""One token of so many is read."""


def selections(tokens: int) -> dict[str, Runs]:
    """The same number of tokens a KV head: as runs of 16, and one by one."""
    read = tokens // BUDGET
    runs = torch.stack([torch.randperm(tokens // 16)[: read // 16] * 16 for _ in range(GROUPS)])
    ones = torch.stack([torch.randperm(tokens)[:read] for _ in range(GROUPS)])
    return {
        "clusters of 16": Runs(
            runs.int(), torch.full_like(runs, 16).int(), torch.full((GROUPS,), read // 16).int()
        ),
        "single tokens": Runs(ones.int(), None, torch.full((GROUPS,), read).int()),
    }


def gathered(q_HD: Tensor, keys_GTD: Tensor, values_GTD: Tensor, id_GK: Tensor) -> Tensor:
    """The same in torch: gather, then its fused attention."""
    id_GKD = id_GK[..., None].expand(-1, -1, WIDTH)
    return fused(q_HD, keys_GTD.gather(1, id_GKD), values_GTD.gather(1, id_GKD))


def run(settings: Settings) -> list[Table]:
    """One row a kind of selection; two selections take turns, so that rows come from memory."""
    tokens = settings.tokens
    q_HD = torch.randn(HEADS, WIDTH).bfloat16()
    keys_GTD, values_GTD = (torch.randn(GROUPS, tokens, WIDTH).bfloat16() for _ in "kv")
    read, size = reader()
    head = ("what is read", "sparse_decode", "GB/s", "of read bandwidth", "torch", "faster")
    title = f"sparse_decode: bfloat16, {tokens // BUDGET:,} of {tokens:,} tokens a KV head"
    table = Table(title, head)
    for name, runs in selections(tokens).items():
        stretch = 1 if runs.size_NK is None else 16
        id_GK = (runs.start_NK[..., None] + torch.arange(stretch)).flatten(1).long()
        inputs = (q_HD, keys_GTD, values_GTD)
        seconds = time_together(
            {
                "read": read,  # 256 MB: what is measured next finds nothing of its own in a cache
                "ours": partial(sparse_decode, *inputs, runs, scale=WIDTH**-0.5),
                "read again": read,
                "torch": partial(gathered, *inputs, id_GK),
            },
            settings,
            3 * settings.rounds,
        )
        rate = id_GK.numel() * WIDTH * 4 / seconds["ours"] / 1e9
        bandwidth = size / seconds["read"] / 1e9
        table.rows.append(
            (
                name,
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
