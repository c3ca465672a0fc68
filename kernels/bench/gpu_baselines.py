"""What PQCache, Loki and MagicPIG do in a step and before it, on a GPU."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch
from gpu_timing import BUDGET, GROUPS, RATIO, SCALE, WIDTH, ran, row, seconds
from tables import Table

from longspan_kernels.hash_tables import codes, hash_build, hash_search
from longspan_kernels.key_scan import best_keys, coordinates
from longspan_kernels.key_scan import encode as coded_keys
from longspan_kernels.product_codes import best_tokens, encode, train
from longspan_kernels.sampled_decode import sampled_decode
from longspan_kernels.types import Coded, Sampling

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from longspan_kernels.types import Sharing

LAYOUTS = ((2, 6), (4, 8))
"""Parts and bits: PQCache's, and those that RetroInfer compares with."""

BITS, TABLES = 10, 150


def clustered(tokens: int) -> tuple[Tensor, Tensor]:
    """Keys in clusters of 32, and queries near some of them."""
    spots_GSD = torch.randn(GROUPS, -(-tokens // 32), WIDTH, device="cuda")
    keys_GTD = spots_GSD.repeat_interleave(32, 1)[:, :tokens]
    keys_GTD = (keys_GTD + torch.randn_like(keys_GTD)).bfloat16()
    near_HD = keys_GTD[:, :: tokens // RATIO][:, :RATIO].flatten(0, 1).float()
    return (1.5 * near_HD + torch.randn_like(near_HD)).bfloat16(), keys_GTD


def searching(tokens: int, peak: float) -> Table:
    """Decode steps, beside the references on the same GPU, which no graph can hold."""
    head = ("operation", "us", "GB/s", "of the copy's", "torch us", "faster")
    named = f"PQCache, Loki, MagicPIG: {GROUPS} KV heads of {tokens:,} tokens"
    table = Table(f"{named}, {RATIO} query heads each", head)
    q_HD, keys_GTD = clustered(tokens)

    def add(name: str, call: Callable[..., object], moved: float) -> None:
        torchs = ran(partial(call, backend="reference"))
        table.rows.append(row(name, seconds(call), moved, peak, torchs))

    shares: dict[Sharing, int] = {"kv_head": GROUPS, "query_head": len(q_HD)}
    wanted = round(BUDGET * tokens)
    for parts, bits in LAYOUTS:
        code_GPT = torch.randint(2**bits, (GROUPS, parts, tokens), device="cuda").byte()
        shape = GROUPS, parts, 2**bits, WIDTH // parts
        coded = [Coded(torch.randn(shape, device="cuda"), code_GPT)]
        for share, rows in shares.items():
            call = partial(best_tokens, q_HD, coded, wanted, scale=SCALE, share=share)
            reads = 2 if share == "kv_head" else 1
            moved = reads * code_GPT.nbytes + 8 * rows * tokens
            add(f"best_tokens, {parts} parts of {bits} bits, a set a {share}", call, moved)
    for rank in (WIDTH // 4, WIDTH // 2):
        where = coordinates(keys_GTD, None, rank, "keys")
        scanned = coded_keys(keys_GTD, where)
        moved = scanned.code_GTW.nbytes + 16 * len(q_HD) * tokens
        add(f"best_keys, {rank} columns", partial(best_keys, q_HD, [scanned], where, wanted), moved)
    mean_GD = keys_GTD.mean(1, dtype=torch.float32)
    norm_GT = (keys_GTD.float() - mean_GD[:, None]).norm(dim=-1)
    planes_LDK = torch.randn(TABLES, WIDTH, BITS, device="cuda")
    tables = hash_build(keys_GTD, mean_GD, planes_LDK)
    code_HL = codes(q_HD, planes_LDK).T
    found, read = hash_search(code_HL, tables)
    add("codes of the queries", partial(codes, q_HD, planes_LDK), planes_LDK.nbytes)
    marks = len(q_HD) * tokens // 4
    add("hash_search", partial(hash_search, code_HL, tables), 4 * int(read) + marks)
    sampled = int(found.count_N.sum())
    sampling = Sampling(mean_GD, norm_GT, BITS, TABLES)
    attend = partial(sampled_decode, q_HD, keys_GTD, keys_GTD, found, sampling, scale=SCALE)
    name = f"sampled_decode, {sampled / len(q_HD) / tokens:.1%} sampled"
    add(name, attend, sampled * WIDTH * 4)
    return table


def indexing(tokens: int) -> Table:
    """What is built of a prompt, a layer."""
    table = Table(f"Indexes of {GROUPS} KV heads of {tokens:,} keys", ("what", "ms", "torch ms"))
    _, keys_GTD = clustered(tokens)
    mean_GD = keys_GTD.mean(1, dtype=torch.float32)
    planes_LDK = torch.randn(TABLES, WIDTH, BITS, device="cuda")
    calls: dict[str, Callable[..., object]] = {
        f"hash_build, {TABLES} tables of {BITS} planes": partial(
            hash_build, keys_GTD, mean_GD, planes_LDK
        )
    }
    for parts, bits in LAYOUTS:
        centroids_GPCE = train(keys_GTD, parts, 2**bits, 10)
        calls[f"encode, {parts} parts of {bits} bits"] = partial(encode, keys_GTD, centroids_GPCE)
        taken = ran(partial(train, keys_GTD, parts, 2**bits, 10)) * 1e3
        table.rows.append((f"train, {parts} parts of {bits} bits (torch)", f"{taken:.1f}", "-"))
    for name, call in calls.items():
        times = (ran(partial(call, backend=backend)) * 1e3 for backend in ("auto", "reference"))
        table.rows.append((name, *(f"{taken:.1f}" for taken in times)))
    return table
