"""Building an index and reading a prompt sparsely, on a GPU."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from gpu_timing import CLUSTER, GROUPS, RATIO, SCALE, WIDTH, attended, ran
from inputs import topic_keys
from tables import Table

from longspan_kernels.block_sparse_prefill import block_sparse_prefill
from longspan_kernels.cell_scores import cell_scores
from longspan_kernels.segmented_kmeans import segmented_kmeans


def building(tokens: int) -> Table:
    """Segmented k-means of a layer beside the attention of its prefill."""
    head = ("tokens", "seeding", "rounds", "index ms", "attention of the prefill ms", "share")
    table = Table(f"segmented_kmeans: {GROUPS} KV heads, segments of 8,192", head)
    for length in (tokens // 4, tokens):
        keys = topic_keys(GROUPS, length, WIDTH)[0].cuda()
        segments = max(1, round(length / 8192))
        shape: dict[str, Any] = {"clusters": length // CLUSTER, "segments": segments}
        q = torch.randn(1, GROUPS * RATIO, length, WIDTH, device="cuda").bfloat16()
        wide = keys.repeat_interleave(RATIO, 0)[None]
        attention = ran(partial(attended, q, wide, wide, is_causal=True))
        for seeding, rounds in (("even", 10), ("mixed", 10), ("mixed", 4)):
            how: dict[str, Any] = {"seeding": seeding, "iterations": rounds, **shape}
            taken = ran(partial(segmented_kmeans, keys, keys, **how))
            cells = (f"{taken * 1e3:.1f}", f"{attention * 1e3:.1f}", f"{taken / attention:.1%}")
            table.rows.append((f"{length:,}", seeding, str(rounds), *cells))
    return table


def choosing(tokens: int) -> Table:
    """What chooses the blocks of a sparse prefill, beside the attention that it is to save."""
    head = ("stride", "cell_scores ms", "torch, dense ms", "share")
    tokens = tokens // 128 * 128
    chunk = min(4096, tokens)
    table = Table(f"cell_scores: {chunk:,} positions on {tokens:,} tokens, blocks of 128", head)
    q = torch.randn(GROUPS * RATIO, chunk, WIDTH, device="cuda").bfloat16()
    k = torch.randn(GROUPS, tokens, WIDTH, device="cuda").bfloat16()
    many = k.repeat_interleave(RATIO, 0)[None]
    dense = ran(partial(attended, q[None], many, many))
    for stride in (8, 16):
        cut: dict[str, Any] = {"stride": stride, "block": 128, "ahead": tokens - chunk}
        taken = ran(partial(cell_scores, q, k, scale=SCALE / stride, **cut))
        cells = (f"{taken * 1e3:.2f}", f"{dense * 1e3:.2f}", f"{taken / dense:.0%}")
        table.rows.append((str(stride), *cells))
    return table


def prefilling(tokens: int) -> Table:
    """Block-sparse prefill beside torch's dense attention."""
    head = ("blocks seen", "block_sparse_prefill ms", "torch, dense ms", "faster")
    tokens = tokens // 64 * 64
    chunk = min(4096, tokens)
    table = Table(f"block_sparse_prefill: {chunk:,} positions on {tokens:,} tokens", head)
    heads, blocks = GROUPS * RATIO, (chunk // 64, tokens // 64)
    q = torch.randn(heads, chunk, WIDTH, device="cuda").bfloat16()
    k, v = (torch.randn(GROUPS, tokens, WIDTH, device="cuda").bfloat16() for _ in "kv")
    many_k, many_v = (x.repeat_interleave(RATIO, 0)[None] for x in (k, v))
    dense = ran(partial(attended, q[None], many_k, many_v))
    for share in (1.0, 0.25, 0.05):
        chosen = torch.rand(heads, *blocks, device="cuda") < share
        call = partial(block_sparse_prefill, q, k, v, chosen, scale=SCALE, causal=False)
        taken = ran(call)
        cells = (f"{taken * 1e3:.2f}", f"{dense * 1e3:.2f}", f"{dense / taken:.1f}x")
        table.rows.append((f"{share:.0%}", *cells))
    return table
