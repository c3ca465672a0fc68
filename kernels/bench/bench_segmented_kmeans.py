"""Building the wave index: linear in the context, and small beside dense prefill attention."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from bench_dense_decode import GROUPS, HEADS, WIDTH
from inputs import topic_keys
from tables import Table

from longspan_kernels.segmented_kmeans import segmented_kmeans

if TYPE_CHECKING:
    from collections.abc import Callable

    from tables import Settings
    from torch import Tensor

SAMPLE = 256
"""Queries whose attention is timed; the whole prefill is extrapolated from them."""


def prefill_seconds(keys_GTD: Tensor, settings: Settings) -> float:
    """Causal attention of a whole prompt of T tokens, all query heads, by torch's fused attention.

    Timed for SAMPLE queries that see all T keys; a causal prompt has T / SAMPLE times as many
    queries, which see half the keys in the mean.
    """
    q_HQD = torch.randn(1, HEADS, SAMPLE, WIDTH, dtype=keys_GTD.dtype)
    keys_HTD = keys_GTD.repeat_interleave(HEADS // GROUPS, dim=0)[None]
    taken = []
    for _ in range(3):
        begin = settings.clock()
        F.scaled_dot_product_attention(q_HQD, keys_HTD, keys_HTD)
        taken.append(settings.clock() - begin)
    return min(taken) * keys_GTD.shape[1] / SAMPLE / 2


def run(settings: Settings) -> list[Table]:
    """One row a context length; the whole layer, all KV heads."""
    tokens = settings.tokens
    keys_GTD, _ = topic_keys(GROUPS, tokens, WIDTH)
    rows: list[tuple[str, ...]] = []
    per_token = []
    for length in (tokens // 4, tokens // 2, tokens):
        part_GTD = keys_GTD[:, :length]
        begin = settings.clock()
        segmented_kmeans(part_GTD, part_GTD, clusters=length // 16, segments=max(1, length // 8192))
        seconds = settings.clock() - begin
        flops = 2.0 * GROUPS * length * min(512, length // 16) * WIDTH * 10
        prefill = prefill_seconds(part_GTD, settings)
        per_token.append(seconds / length)
        rows.append(
            (
                f"{length:,}",
                f"{seconds:.2f} s",
                f"{per_token[-1] * 1e6:.1f} us",
                f"{flops / seconds / 1e9:.0f}",
                f"{prefill:.1f} s",
                f"{seconds / prefill:.2%}",
            )
        )
    head = ("tokens", "build", "per token", "GFLOP/s", "dense prefill attention", "share of it")
    title = f"segmented_kmeans: {GROUPS} KV heads, D = {WIDTH}, bfloat16, 16 tokens a cluster"
    note = (
        f"Time per token at {tokens:,} is {per_token[-1] / per_token[0]:.2f} times that at"
        f" {tokens // 4:,}. Dense prefill attention is torch's fused one for {SAMPLE} queries,"
        " extrapolated to a causal prompt."
    )
    return [Table(title, head, rows, (note,))]


def cases(settings: Settings) -> dict[str, Callable[[], list[Table]]]:
    """See run.py."""
    return {"": partial(run, settings)}
