"""Merging partial attentions: against torch."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch
from bench_dense_decode import HEADS, WIDTH
from tables import Table, time_together

from longspan_kernels.merge import merge
from longspan_kernels.types import Partial

if TYPE_CHECKING:
    from collections.abc import Callable

    from tables import Settings
    from torch import Tensor


def by_torch(parts: list[Partial]) -> Tensor:
    """The same in torch."""
    lse_PR = torch.stack([part.lse for part in parts])
    weight_PR = torch.softmax(lse_PR, dim=0)
    return (torch.stack([part.out for part in parts]) * weight_PR[..., None]).sum(0)


def run(settings: Settings) -> list[Table]:
    """One row a shape: a decode step, and a chunk of a prompt."""
    positions = min(2048, settings.tokens // 64)
    table = Table(
        f"merge: 4 parts, {HEADS} heads, D = {WIDTH}", ("positions", "merge", "torch", "faster")
    )
    for queries in (1, positions):
        rows = HEADS * queries
        parts = [Partial(torch.randn(rows, WIDTH), torch.randn(rows)) for _ in range(4)]
        seconds = time_together(
            {"ours": partial(merge, parts), "torch": partial(by_torch, parts)},
            settings,
            3 * settings.rounds,
        )
        table.rows.append(
            (
                f"{queries:,}",
                f"{seconds['ours'] * 1e6:.0f} us",
                f"{seconds['torch'] * 1e6:.0f} us",
                f"{seconds['torch'] / seconds['ours']:.1f}x",
            )
        )
    return [table]


def cases(settings: Settings) -> dict[str, Callable[[], list[Table]]]:
    """See run.py."""
    return {"": partial(run, settings)}
