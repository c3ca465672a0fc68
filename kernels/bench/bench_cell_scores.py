"""Scores of cells, by which XAttention chooses blocks: against the matrix products and softmaxes in
plain torch, and beside the dense attention that the choice is to save.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from tables import Table, time_together

from longspan_kernels.cell_scores import cell_scores
from longspan_kernels.dense_prefill import dense_prefill

if TYPE_CHECKING:
    from collections.abc import Callable

    from tables import Settings

HEADS, GROUPS, WIDTH, BLOCK = 8, 2, 128, 128
SCALE = WIDTH**-0.5


def run(settings: Settings) -> list[Table]:
    """One row a storage type and stride."""
    tokens, positions = (2048, 256) if settings.tokens < 8192 else (32768, 1024)
    title = (
        f"cell_scores: {HEADS} query / {GROUPS} KV heads, D = {WIDTH}, {positions:,} positions on"
        f" {tokens:,} stored tokens, blocks of {BLOCK}"
    )
    head = (
        "storage", "stride", "cell_scores", "GFLOP/s", "plain torch", "dense_prefill",
        "faster than torch", "share of dense",
    )  # fmt: skip
    table = Table(title, head)
    for dtype in (torch.bfloat16, torch.float32):
        q_HQD = torch.randn(HEADS, positions, WIDTH).to(dtype)
        keys_GTD, values_GTD = (torch.randn(GROUPS, tokens, WIDTH).to(dtype) for _ in "kv")
        for stride in (8, 16):
            cut: dict[str, Any] = {"stride": stride, "block": BLOCK, "ahead": tokens - positions}
            call = partial(cell_scores, q_HQD, keys_GTD, scale=SCALE / stride, **cut)
            dense = partial(dense_prefill, q_HQD, keys_GTD, values_GTD, scale=SCALE, causal=True)
            plain = partial(call, backend="reference")
            ways: dict[str, Callable[[], object]] = {"ours": call, "torch": plain, "dense": dense}
            seconds = time_together(ways, settings, rounds=5)
            work = 2.0 * HEADS * positions * tokens * WIDTH / stride
            table.rows.append(
                (
                    str(dtype).removeprefix("torch."),
                    str(stride),
                    f"{seconds['ours'] * 1e3:.1f} ms",
                    f"{work / seconds['ours'] / 1e9:.0f}",
                    f"{seconds['torch'] * 1e3:.1f} ms",
                    f"{seconds['dense'] * 1e3:.1f} ms",
                    f"{seconds['torch'] / seconds['ours']:.1f}x",
                    f"{seconds['ours'] / seconds['dense']:.0%}",
                )
            )
    return [table]


def cases(settings: Settings) -> dict[str, Callable[[], list[Table]]]:
    """See run.py."""
    return {"": partial(run, settings)}
