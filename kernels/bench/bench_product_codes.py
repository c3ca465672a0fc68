"""Product quantisation: against torch (the reference), and the bytes of full attention's keys."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch
from bench_dense_decode import GROUPS, HEADS, WIDTH
from tables import Table, time_together

from longspan_kernels.product_codes import best_tokens, encode, train
from longspan_kernels.types import Coded

if TYPE_CHECKING:
    from collections.abc import Callable

    from tables import Settings

LAYOUTS = ((2, 6), (4, 8))
"""Parts and bits: PQCache's, and those that RetroInfer compares with."""


def search(settings: Settings) -> list[Table]:
    """A step: one row a layout and a way of sharing."""
    head = ("parts, bits", "a set a", "best_tokens", "torch", "faster")
    table = Table(f"product_codes: searching {settings.tokens:,} tokens for 1.8 %", head)
    q_HD, wanted = torch.randn(HEADS, WIDTH), round(0.018 * settings.tokens)
    for parts, bits in LAYOUTS:
        code_GPT = torch.randint(2**bits, (GROUPS, parts, settings.tokens), dtype=torch.uint8)
        coded = [Coded(torch.randn(GROUPS, parts, 2**bits, WIDTH // parts), code_GPT)]
        for share in ("kv_head", "query_head"):
            call = partial(best_tokens, q_HD, coded, wanted, scale=WIDTH**-0.5, share=share)
            calls = {"ours": call, "torch": partial(call, backend="reference")}
            seconds = time_together(calls, settings)
            ratio = f"{seconds['torch'] / seconds['ours']:.1f}x"
            times = (f"{seconds[name] * 1e3:.2f} ms" for name in calls)
            table.rows.append((f"{parts}, {bits}", share.replace("_", " "), *times, ratio))
    return [table]


def build(settings: Settings) -> list[Table]:
    """Codebooks and codes of a prompt."""
    head = ("parts, bits", "what", "ours", "torch", "faster")
    table = Table(f"product_codes: {settings.tokens:,} keys in bfloat16, 10 rounds", head)
    keys_GTD = torch.randn(GROUPS, settings.tokens, WIDTH).bfloat16()
    for parts, bits in LAYOUTS:
        centroids_GPCE = train(keys_GTD, parts, 2**bits, 1)
        calls = {
            "codebooks": partial(train, keys_GTD, parts, 2**bits, 10),
            "codes": partial(encode, keys_GTD, centroids_GPCE),
        }
        for what, call in calls.items():
            both = {"ours": call, "torch": partial(call, backend="reference")}
            seconds = time_together(both, settings, rounds=1)
            ratio = f"{seconds['torch'] / seconds['ours']:.1f}x"
            times = (f"{seconds[name]:.2f} s" for name in both)
            table.rows.append((f"{parts}, {bits}", what, *times, ratio))
    return [table]


def cases(settings: Settings) -> dict[str, Callable[[], list[Table]]]:
    """See run.py."""
    return {"search": partial(search, settings), "build": partial(build, settings)}
