"""MagicPIG's operations: hash tables and attention over what they sample, against torch."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch
from bench_dense_decode import GROUPS, HEADS, WIDTH
from tables import Table, time_together

from longspan_kernels.hash_tables import codes, hash_build, hash_search
from longspan_kernels.sampled_decode import sampled_decode
from longspan_kernels.types import Sampling

if TYPE_CHECKING:
    from collections.abc import Callable

    from tables import Settings

BITS, TABLES = 10, 150


def run(settings: Settings) -> list[Table]:
    """One row an operation; keys lie in clusters, and queries near some of them."""
    tokens = settings.tokens
    spots_GSD = torch.randn(GROUPS, tokens // 32, WIDTH)
    keys_GTD = spots_GSD.repeat_interleave(32, 1) + torch.randn(GROUPS, tokens, WIDTH)
    keys_GTD, values_GTD = keys_GTD.bfloat16(), torch.randn(GROUPS, tokens, WIDTH).bfloat16()
    near_HD = keys_GTD[:, :: tokens // (HEADS // GROUPS)].flatten(0, 1)
    q_HD = (1.5 * near_HD.float() + torch.randn(HEADS, WIDTH)).bfloat16()
    planes_LDK = torch.randn(TABLES, WIDTH, BITS)
    mean_GD = keys_GTD.mean(1, dtype=torch.float32)
    norm_GT = (keys_GTD.float() - mean_GD[:, None]).norm(dim=-1)
    tables = hash_build(keys_GTD, mean_GD, planes_LDK)
    code_HL = codes(q_HD.float(), planes_LDK).T.contiguous()
    found, read = hash_search(code_HL, tables)
    sampled = int(found.count_N.sum()) / HEADS / tokens
    title = (
        f"hash_tables, sampled_decode: {tokens:,} tokens, {TABLES} tables of {BITS} planes,"
        f" {read / HEADS:,.0f} entries read and {sampled:.1%} sampled a head"
    )
    table = Table(title, ("operation", "ours", "torch", "faster"))
    sampling = Sampling(mean_GD, norm_GT, BITS, TABLES)
    decode = partial(sampled_decode, q_HD, keys_GTD, values_GTD, found, sampling, scale=WIDTH**-0.5)
    operations: dict[str, tuple[Callable[..., object], int]] = {
        "hash_build": (partial(hash_build, keys_GTD, mean_GD, planes_LDK), 1),
        "hash_search": (partial(hash_search, code_HL, tables), settings.rounds),
        "sampled_decode": (decode, settings.rounds),
    }
    for name, (call, rounds) in operations.items():
        both: dict[str, Callable[[], object]] = {
            "ours": call,
            "torch": partial(call, backend="reference"),
        }
        seconds = time_together(both, settings, rounds=rounds)
        ratio = f"{seconds['torch'] / seconds['ours']:.1f}x"
        table.rows.append((name, *(f"{seconds[each] * 1e3:.2f} ms" for each in both), ratio))
    return [table]


def cases(settings: Settings) -> dict[str, Callable[[], list[Table]]]:
    """See run.py."""
    return {"": partial(run, settings)}
