"""Block-sparse prefill: against dense prefill of the same chunk, ours and torch's flash kernel, and
against gathering for the latter.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch
from tables import Table, time_together

from longspan_kernels.block_sparse_prefill import block_sparse_prefill
from longspan_kernels.dense_prefill import dense_prefill, fused

if TYPE_CHECKING:
    from collections.abc import Callable

    from tables import Settings
    from torch import Tensor

HEADS, GROUPS, WIDTH, BLOCK = 8, 2, 128, 64
SCALE = WIDTH**-0.5


def gathered(q_HQD: Tensor, keys_GTD: Tensor, values_GTD: Tensor, blocks_HXY: Tensor) -> Tensor:
    """The chosen blocks copied for each block of positions, then torch's flash kernel."""
    out_HQD = torch.zeros_like(q_HQD)
    group = HEADS // GROUPS
    for h in range(HEADS):
        shape = (-1, BLOCK, WIDTH)
        k_YBD, v_YBD = keys_GTD[h // group].view(shape), values_GTD[h // group].view(shape)
        for x, chosen_Y in enumerate(blocks_HXY[h]):
            if chosen_Y.any():
                rows = slice(x * BLOCK, (x + 1) * BLOCK)
                k, v = (each[chosen_Y].view(1, -1, WIDTH) for each in (k_YBD, v_YBD))
                out_HQD[h, rows] = fused.flash(q_HQD[h : h + 1, rows], k, v, SCALE, False).out[0]
    return out_HQD


def run(settings: Settings) -> list[Table]:
    """One row a storage type and share of blocks."""
    tokens, positions = (2048, 256) if settings.tokens < 8192 else (8192, 1024)
    title = (
        f"block_sparse_prefill: {HEADS} query / {GROUPS} KV heads, D = {WIDTH}, {positions:,}"
        f" positions on {tokens:,} stored tokens, blocks of {BLOCK}"
    )
    head = (
        "storage", "blocks", "block_sparse_prefill", "GFLOP/s", "dense_prefill", "torch dense",
        "gather + torch", "faster than torch dense", "faster than gathering",
    )  # fmt: skip
    table = Table(title, head)
    for dtype in (torch.bfloat16, torch.float32):
        q_HQD = torch.randn(HEADS, positions, WIDTH).to(dtype)
        keys_GTD, values_GTD = (torch.randn(GROUPS, tokens, WIDTH).to(dtype) for _ in "kv")
        for share in (1.0, 0.25, 0.05):
            grid = (HEADS, positions // BLOCK, tokens // BLOCK)
            blocks_HXY = torch.rand(grid) < share
            inputs = (q_HQD, keys_GTD, values_GTD)
            seconds = time_together(
                {
                    "ours": partial(
                        block_sparse_prefill, *inputs, blocks_HXY, scale=SCALE, causal=False
                    ),
                    "dense": partial(dense_prefill, *inputs, scale=SCALE, causal=False),
                    "torch": partial(fused.dense_prefill, *inputs, scale=SCALE, causal=False),
                    "gather": partial(gathered, *inputs, blocks_HXY),
                },
                settings,
                rounds=5,
            )
            work = float(blocks_HXY.sum()) * BLOCK**2 * WIDTH * 4
            table.rows.append(
                (
                    str(dtype).removeprefix("torch."),
                    f"{float(blocks_HXY.float().mean()):.0%}",
                    f"{seconds['ours'] * 1e3:.0f} ms",
                    f"{work / seconds['ours'] / 1e9:.0f}",
                    f"{seconds['dense'] * 1e3:.0f} ms",
                    f"{seconds['torch'] * 1e3:.0f} ms",
                    f"{seconds['gather'] * 1e3:.0f} ms",
                    f"{seconds['torch'] / seconds['ours']:.1f}x",
                    f"{seconds['gather'] / seconds['ours']:.1f}x",
                )
            )
    return [table]


def cases(settings: Settings) -> dict[str, Callable[[], list[Table]]]:
    """See run.py."""
    return {"": partial(run, settings)}
