"""Compiles every Triton kernel for a Hopper GPU, as the operations would launch it, on any machine.

The operations run on CPU tensors with a driver that launches nothing: what they would launch is
compiled down to machine code, and one JSON line a kernel says what came out.
"""

from __future__ import annotations

import json
import re
import sys
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.jit import JITFunction

from longspan_kernels import on_gpu
from longspan_kernels.block_cache.triton import raise_flag
from longspan_kernels.block_sparse_prefill import block_sparse_prefill
from longspan_kernels.cached_decode import CachedStore, PagePool, admit_pages, cached_decode
from longspan_kernels.cell_scores import cell_scores
from longspan_kernels.dense_decode import dense_decode
from longspan_kernels.hash_tables import codes, hash_build, hash_search
from longspan_kernels.key_scan import Coordinates, KeyCodes, best_keys
from longspan_kernels.key_scan.steps import Candidates, SlotCodes, best_slots
from longspan_kernels.merge import merge
from longspan_kernels.page_gather import page_admit, page_gather
from longspan_kernels.product_codes import best_tokens, encode, step_tokens
from longspan_kernels.sampled_decode import sampled_decode
from longspan_kernels.segmented_kmeans import segmented_kmeans
from longspan_kernels.sparse_decode import sparse_decode
from longspan_kernels.step_slots import append_token, zone_runs
from longspan_kernels.types import Chosen, Coded, CodedRows, Pages, Partial, Runs, Sampling
from longspan_kernels.wave_decode.mass import promoted, spread_bias
from longspan_kernels.wave_search import wave_search

TARGET = GPUTarget("cuda", 90, 32)


def told_of(log: str) -> dict[str, int]:
    """Registers a thread, bytes that they spill, and whether matrix products wait for each other;
    nothing of a kernel made before, or where TRITON_DUMP_PTXAS_LOG is not set.
    """
    numbers = {"registers": r"Used (\d+) registers", "spilled": r"(\d+) bytes spill stores"}
    found = {name: re.search(pattern, log) for name, pattern in numbers.items()}
    told = {name: int(each[1]) for name, each in found.items() if each}
    return told | {"serialised": log.count("instructions are serialized")}


def only_compile() -> None:
    """From here on launching a kernel compiles it, and no more."""
    triton.runtime.driver.set_active(
        SimpleNamespace(
            get_current_target=lambda: TARGET,
            get_current_device=lambda: 0,
            get_current_stream=lambda device: 0,
        )
    )
    torch.empty = torch.zeros  # nothing is computed, but torch itself reads labels as indices
    on_gpu._memory_obstacle = lambda present: None
    launch = JITFunction.run

    def run(self: Any, *args: Any, grid: Any, warmup: bool, **options: Any) -> Any:
        with redirect_stdout(StringIO()) as log:  # what the assembler says of a kernel it makes
            kernel = launch(self, *args, grid=grid, warmup=True, **options)
        assert kernel.asm["cubin"]
        said = {"kernel": self.fn.__name__, "bytes": len(kernel.asm["cubin"])}
        said |= {"releases": kernel.asm["ptx"].count("st.release.sys")}
        said |= {"shared": kernel.metadata.shared, **told_of(log.getvalue())}
        print(json.dumps(said), flush=True)
        if len(sys.argv) > 1:  # a folder for who wants to read what the compiler made
            Path(sys.argv[1], f"{said['kernel']}_{kernel.hash[:6]}.ptx").write_text(
                kernel.asm["ptx"]
            )
        return kernel

    JITFunction.run = run


def decode(dtype: torch.dtype, width: int) -> None:
    """Dense, by entries, and by ranges; with and without everything that is optional."""
    q_HD, k_GTD = torch.zeros(8, width, dtype=dtype), torch.zeros(2, 4096, width, dtype=dtype)
    start_NK, count_N = torch.zeros(2, 50, dtype=torch.int32), torch.zeros(2, dtype=torch.int32)
    plain: dict[str, Any] = {"scale": 0.1, "backend": "triton"}
    options = {"softcap": 30.0, "bias_GT": torch.zeros(2, 4096), **plain}
    dense_decode(q_HD, k_GTD, k_GTD, **plain)
    sparse_decode(q_HD, k_GTD, k_GTD, Runs(start_NK, None, count_N), **options)
    sparse_decode(q_HD, k_GTD, k_GTD, Runs(start_NK, start_NK, count_N), **plain)
    i_GTD, s_GT = k_GTD.to(torch.int8), torch.zeros(2, 4096)
    dense_decode(q_HD, i_GTD, i_GTD, key_scale_GT=s_GT, value_scale_GT=s_GT, **options)


def cluster(dtype: torch.dtype, width: int) -> None:
    """Searching and building, within segments and over all of them."""
    q_HD, k_GTD = torch.zeros(8, width, dtype=dtype), torch.zeros(2, 300, width, dtype=dtype)
    size_GC = torch.ones(2, 300, dtype=torch.int32)
    search: dict[str, Any] = {"retrieve": 3, "estimate": 9, "scale": 0.1, "backend": "triton"}
    wave_search(q_HD, k_GTD, size_GC, **search)
    more = {"softcap": 9.0, "vote": "max", "bias_GC": torch.ones(2, 300), "weight_H": torch.ones(8)}
    wave_search(q_HD, k_GTD, size_GC, **search, **more)
    limits = {"most_2G": torch.ones(2, 2, dtype=torch.int32), "want_scores": False}
    wave_search(q_HD, k_GTD, size_GC, **search, **limits)
    many = torch.zeros(2, 20_000, width, dtype=dtype)
    wave_search(q_HD, many, many[..., 0].int(), **search, **limits)
    shape: dict[str, Any] = {"clusters": 150, "segments": 3, "iterations": 2, "seeding": "mixed"}
    segmented_kmeans(k_GTD, k_GTD, **shape, backend="triton")
    segmented_kmeans(k_GTD, k_GTD, clusters=30, iterations=1, final="global", backend="triton")
    spread_bias(torch.zeros(2, 300), torch.zeros(2, 300), q_HD, 0.1, backend="triton")
    ids = Runs(size_GC[:, :40], None, torch.ones(2, dtype=torch.int32))
    for exact_H in (torch.zeros(8), None):
        weights = torch.zeros(8, 300), *torch.zeros(2, 2, 300), exact_H
        promoted(ids, ids, *weights, 0.1, backend="triton")


def prefill(dtype: torch.dtype, width: int) -> None:
    """Blocks with columns, and what chooses blocks."""
    q_HQD, k_GTD = torch.zeros(4, 200, width, dtype=dtype), torch.zeros(2, 300, width, dtype=dtype)
    blocks_HXY, columns_HT = torch.ones(4, 4, 5).bool(), torch.ones(4, 300).bool()
    block_sparse_prefill(
        q_HQD, k_GTD, k_GTD, blocks_HXY,
        columns_HT=columns_HT, scale=0.1, causal=True, backend="triton",
    )  # fmt: skip
    cell_scores(q_HQD, k_GTD, stride=8, block=64, ahead=100, scale=0.1, backend="triton")


def copies(dtype: torch.dtype) -> None:
    """Pages in, and back."""
    store, cache = torch.zeros(2, 99, 128, dtype=dtype), torch.zeros(40, 128, dtype=dtype)
    lists = torch.zeros(2, 4, dtype=torch.int32)
    pages, buffer = Pages(lists, lists, lists, lists[:, 0].clone(), 8), torch.zeros_like(store)
    page_gather(store, store, cache, cache, pages, buffer, buffer, backend="triton")
    page_admit(buffer, buffer, pages, cache, cache, backend="triton")


def cached(dtype: torch.dtype, width: int, page: int) -> None:
    """Attention to what lies near, in the pool and at home; pages into the pool."""
    near, gap_2N = torch.zeros(2, 40, width, dtype=dtype), torch.zeros(2, 2, dtype=torch.int32)
    home = [SimpleNamespace(first=n, keys_GTD=near[:1], values_GTD=near[:1]) for n in (0, 40)]
    store = CachedStore.of([home, []], near, near, gap_2N, PagePool.of(9, page, near))
    list_NK = torch.zeros(2, 50, dtype=torch.int32)
    q_HD, runs = torch.zeros(8, width, dtype=dtype), Runs(list_NK, list_NK, list_NK[:, 0].clone())
    cached_decode(q_HD, store, runs, scale=0.1, backend="triton")
    admitted_BA4 = torch.zeros(2, 30, 4, dtype=torch.int32)
    admit_pages(store, admitted_BA4, admitted_BA4[:, 0, 0].clone(), backend="triton")


def places(dtype: torch.dtype) -> None:
    """Where a step's token goes, and what it reads."""
    rows_NCD, at_B = torch.zeros(4, 9, 128, dtype=dtype), torch.zeros(2, dtype=torch.int64)
    k_BGD, list_NK = rows_NCD[:, 0].view(2, 2, 128), torch.zeros(4, 50, dtype=torch.int32)
    for skipped_B in (None, at_B):
        append_token(rows_NCD, rows_NCD, k_BGD, k_BGD, at_B, skipped_B=skipped_B, backend="triton")
    lists = list_NK, list_NK[:, 0].clone(), list_NK, list_NK
    for zones in (True, False):
        for given in (lists, lists[:2]):
            zone_runs(at_B, 4, Chosen(at_B.repeat(2, 1), *given), zones=zones, backend="triton")
    zone_runs(at_B, 4, backend="triton")


def coded(dtype: torch.dtype, parts: int, bits: int) -> None:
    """Codes, and searching by them, a set a KV head and a set a query head; in steps too."""
    centroids_GPCE = torch.zeros(2, parts, 2**bits, 128 // parts)
    encode(torch.zeros(2, 300, 128, dtype=dtype), centroids_GPCE, backend="triton")
    codes = [
        Coded(centroids_GPCE, torch.zeros(2, parts, some, dtype=torch.uint8)) for some in (3000, 70)
    ]
    q_HD, code_NPT = torch.zeros(8, 128, dtype=dtype), torch.zeros(4, parts, 3008).byte()
    for share in ("kv_head", "query_head"):
        options: dict[str, Any] = {"scale": 0.1, "share": share, "backend": "triton"}
        best_tokens(q_HD, codes, 50, **options)
        for books in (1, 2):
            books_NPCE = centroids_GPCE.repeat(2, 1, books, 1)
            rows = CodedRows(books_NPCE, code_NPT, torch.zeros(2, books, dtype=torch.int32))
            step_tokens(q_HD.repeat(2, 1), rows, 50, **options)


def scanned(rank: int, a_group: int) -> None:
    """Codes of so many columns, two stretches of them."""
    where = Coordinates(*torch.zeros(3, 2, 128, rank))
    parts = [KeyCodes(torch.zeros(2, some, rank).char(), where.mean_GD[:, 0]) for some in (3000, 7)]
    q_HD = torch.zeros(2 * a_group, 128)
    best_keys(q_HD, parts, where, 50, backend="triton")
    whole_BT, count_B = torch.zeros(2, 3000).int(), torch.zeros(2).int()
    steps_NSW = torch.zeros(2, 9, rank)
    codes = SlotCodes(
        parts[0].code_GTW, steps_NSW, where.to_queries_GDW, whole_BT, count_B, count_B
    )
    keys_NCD = torch.zeros(2, 3000, 128, dtype=torch.bfloat16)
    best_slots(q_HD.bfloat16(), codes, 50, Candidates(keys_NCD, 60, count_B), backend="triton")


def sampled(dtype: torch.dtype, width: int, softcap: float | None) -> None:
    """Attention over what hash tables sampled."""
    q_HD, k_GTD = torch.zeros(8, width, dtype=dtype), torch.zeros(2, 4096, width, dtype=dtype)
    which = Runs(torch.zeros(8, 500, dtype=torch.int32), None, torch.zeros(8, dtype=torch.int32))
    sampling = Sampling(torch.zeros(2, width), torch.zeros(2, 4096), 10, 150)
    sampled_decode(
        q_HD, k_GTD, k_GTD, which, sampling, scale=0.1, softcap=softcap, backend="triton"
    )


def hashed(dtype: torch.dtype, width: int, bits: int) -> None:
    """Building tables and looking up what collides."""
    planes_LDK, k_GTD = torch.zeros(150, width, bits), torch.zeros(2, 4096, width, dtype=dtype)
    tables = hash_build(k_GTD, torch.zeros(2, width), planes_LDK, backend="triton")
    code_LH = codes(k_GTD[0, :8], planes_LDK, backend="triton")
    hash_search(code_LH.T, tables, first=4, backend="triton")


def told() -> None:
    """That a list is there."""
    number = torch.ones(1, dtype=torch.int32)
    raise_flag(number, number)


def main() -> None:
    """See the module."""
    only_compile()
    decode(torch.bfloat16, 128)
    cluster(torch.bfloat16, 80)
    prefill(torch.bfloat16, 128)
    copies(torch.bfloat16)
    cached(torch.bfloat16, 128, 8)
    cached(torch.float16, 80, 1)
    places(torch.bfloat16)
    coded(torch.bfloat16, 2, 6)
    coded(torch.float16, 4, 8)
    scanned(64, 4)
    scanned(96, 71)
    sampled(torch.bfloat16, 128, None)
    sampled(torch.bfloat16, 256, 30.0)
    sampled(torch.float32, 80, 30.0)
    hashed(torch.bfloat16, 128, 10)
    hashed(torch.float16, 256, 16)
    told()
    merge([Partial(torch.zeros(3, 7, 96), torch.zeros(3, 7))] * 3, backend="triton")


if __name__ == "__main__":
    main()
