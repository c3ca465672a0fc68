"""The Triton kernels on a GPU beside what their bytes need, and beside torch. Writes a file named
after the GPU.

    python kernels/bench/gpu.py              120,000 tokens, 4 prompts of 8 KV heads
    python kernels/bench/gpu.py --tokens 30000 --prompts 1
"""

from __future__ import annotations

import argparse
import re
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
import triton
from inputs import topic_keys
from tables import Table

from longspan_kernels.block_sparse_prefill import block_sparse_prefill
from longspan_kernels.dense_decode import dense_decode
from longspan_kernels.page_gather import page_gather
from longspan_kernels.segmented_kmeans import segmented_kmeans
from longspan_kernels.sparse_decode import sparse_decode
from longspan_kernels.types import Pages, Runs
from longspan_kernels.wave_search import wave_search

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

GROUPS, RATIO, WIDTH, CLUSTER, PAGE = 8, 4, 128, 16, 8
SCALE = WIDTH**-0.5
BUDGET, ESTIMATE = 0.018, 0.232
attended = F.scaled_dot_product_attention


def seconds(call: Callable[[], object]) -> float:
    """Median of a call in a CUDA graph, so that launching it from Python is not what is timed."""
    return float(triton.testing.do_bench_cudagraph(call, rep=60, return_mode="median")) / 1e3


def ran(call: Callable[[], object]) -> float:
    """Median of a call that no graph can hold."""
    return float(triton.testing.do_bench(call, warmup=10, rep=60, return_mode="median")) / 1e3


def copied() -> float:
    """Bytes a second that a copy reads and writes."""
    source = torch.ones(1 << 28, dtype=torch.int32, device="cuda")
    target = torch.empty_like(source)
    return 2 * source.nbytes / ran(lambda: target.copy_(source))


def row(
    name: str, taken: float, moved: float, peak: float, torchs: float | None
) -> tuple[str, ...]:
    """A line of the table of what memory limits."""
    beside = ("-", "-") if torchs is None else (f"{torchs * 1e6:.0f}", f"{torchs / taken:.1f}x")
    rate = moved / taken
    return (name, f"{taken * 1e6:.0f}", f"{rate / 1e9:.0f}", f"{rate / peak:.0%}", *beside)


def store(rows: int, tokens: int) -> tuple[Tensor, Tensor, Tensor]:
    """Queries [H, D] and keys and values [N, T, D] of `rows` KV heads, bfloat16."""
    q_HD = torch.randn(rows * RATIO, WIDTH, device="cuda").bfloat16()
    k, v = (torch.randn(rows, tokens, WIDTH, device="cuda", dtype=torch.bfloat16) for _ in "kv")
    return q_HD, k, v


def decoding(rows: int, tokens: int, peak: float) -> Table:
    """Dense and sparse decode, and ranking the clusters."""
    head = ("operation", "us", "GB/s", "of the copy's", "torch us", "faster")
    table = Table(f"Decode: {rows} KV heads of {tokens:,} tokens, {RATIO} query heads each", head)
    q, k, v = store(rows, tokens)
    q_NRD = q.view(rows, RATIO, WIDTH)
    dense = seconds(partial(dense_decode, q, k, v, scale=SCALE))
    fused = seconds(partial(attended, q_NRD[None], k[None], v[None]))
    table.rows.append(row("dense_decode", dense, k.nbytes + v.nbytes, peak, fused))
    clusters = tokens // CLUSTER
    read = round(BUDGET * clusters)
    start = torch.stack([torch.randperm(clusters, device="cuda")[:read] for _ in range(rows)])
    start, count = (start * CLUSTER).int(), torch.full((rows,), read, device="cuda").int()
    runs = Runs(start, torch.full_like(start, CLUSTER), count)
    id_NK = (start[..., None] + torch.arange(CLUSTER, device="cuda")).flatten(1).long()
    single = Runs(id_NK.int(), None, count * CLUSTER)

    def gathered() -> Tensor:
        wide = id_NK[..., None].expand(-1, -1, WIDTH)
        return attended(q_NRD[None], k.gather(1, wide)[None], v.gather(1, wide)[None])

    other, moved = seconds(gathered), id_NK.numel() * WIDTH * 4
    for name, chosen in (("clusters", runs), ("tokens", single)):
        sparse = seconds(partial(sparse_decode, q, k, v, chosen, scale=SCALE))
        name = f"sparse_decode, {name}, {BUDGET:.1%}"
        table.rows.append(row(name, sparse, moved, peak, other))
    centroids = torch.randn(rows, clusters, WIDTH, device="cuda").bfloat16()
    sizes = torch.full((rows, clusters), CLUSTER, device="cuda").int()
    wanted = read + round(ESTIMATE * clusters)

    def by_torch() -> Tensor:
        score = torch.softmax((q_NRD @ centroids.mT).float() * SCALE, -1).sum(1)
        return score.topk(wanted, dim=1).indices

    given: dict[str, Any] = {"retrieve": wanted, "estimate": 0, "want_scores": False}
    found = seconds(partial(wave_search, q, centroids, sizes, scale=SCALE, **given))
    table.rows.append(row("wave_search", found, centroids.nbytes, peak, seconds(by_torch)))
    return table


def gathering(tokens: int, peak: float) -> Table:
    """Pages from the cache on the GPU and from pinned host memory, in one launch."""
    head = ("pages found in the cache", "us", "GB/s", "of the copy's", "-", "-")
    table = Table(f"page_gather: pages of {PAGE}, keys and values in pinned memory", head)
    k, v = (torch.randn(GROUPS, tokens, WIDTH).bfloat16().pin_memory() for _ in "kv")
    read = round(BUDGET * tokens / PAGE)
    pool = [torch.randn(GROUPS * read * PAGE, WIDTH, device="cuda").bfloat16() for _ in "kv"]
    out_k, out_v = (torch.empty_like(x).view(GROUPS, read * PAGE, WIDTH) for x in pool)
    target = (torch.arange(read, device="cuda") * PAGE).expand(GROUPS, -1).contiguous().int()
    page = torch.stack([torch.randperm(tokens // PAGE)[:read] for _ in range(GROUPS)])
    stored = (page * PAGE).cuda().int()
    cached = (torch.arange(GROUPS * read, device="cuda") * PAGE).view(GROUPS, -1).int()
    for share in (1.0, 0.8, 0.0):
        hit = torch.rand(GROUPS, read, device="cuda") < share
        source = torch.where(hit, cached, -1 - stored)
        pages = Pages(source, target, torch.full_like(source, PAGE), count(source), PAGE)
        taken = ran(partial(page_gather, k, v, pool[0], pool[1], pages, out_k, out_v))
        table.rows.append(row(f"{share:.0%}", taken, 2 * (out_k.nbytes + out_v.nbytes), peak, None))
    return table


def count(source_NK: Tensor) -> Tensor:
    """How many entries each row has: all."""
    return torch.full((len(source_NK),), source_NK.shape[1], device="cuda").int()


def building(tokens: int) -> Table:
    """Segmented k-means of a layer beside the attention of its prefill."""
    head = ("tokens", "index ms", "attention of the prefill ms", "share")
    table = Table(f"segmented_kmeans: {GROUPS} KV heads, segments of 8,192, 10 iterations", head)
    for length in (tokens // 4, tokens):
        keys = topic_keys(GROUPS, length, WIDTH)[0].cuda()
        segments = max(1, round(length / 8192))
        call = partial(segmented_kmeans, keys, keys, clusters=length // CLUSTER, segments=segments)
        q = torch.randn(1, GROUPS * RATIO, length, WIDTH, device="cuda").bfloat16()
        wide = keys.repeat_interleave(RATIO, 0)[None]
        attention = ran(partial(attended, q, wide, wide, is_causal=True))
        taken = ran(call)
        cells = (f"{taken * 1e3:.1f}", f"{attention * 1e3:.1f}", f"{taken / attention:.1%}")
        table.rows.append((f"{length:,}", *cells))
    return table


def prefilling(tokens: int) -> Table:
    """Block-sparse prefill beside torch's dense attention."""
    head = ("blocks seen", "block_sparse_prefill ms", "torch, dense ms", "faster")
    chunk = min(4096, tokens)
    table = Table(f"block_sparse_prefill: {chunk:,} positions on {tokens:,} tokens", head)
    heads, blocks = GROUPS * RATIO, (chunk // 64, tokens // 64)
    tokens = tokens // 64 * 64
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


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description="Triton kernels against bandwidth and torch.")
    parser.add_argument("--tokens", type=int, default=120_000)
    parser.add_argument("--prompts", type=int, default=4)
    given = parser.parse_args()
    if not torch.cuda.is_available():
        parser.error("there is no CUDA device; kernels/bench/run.py measures the CPU's kernels")
    torch.manual_seed(0)
    name, peak = torch.cuda.get_device_name(), copied()
    told = (
        f"# Triton kernels on {name}\n\ntorch {torch.__version__}, triton {triton.__version__},"
        f" {time.strftime('%B %Y')}. A copy moves {peak / 1e9:.0f} GB/s, read and written. Medians;"
        " decode steps are timed in CUDA graphs.\n"
    )
    rows = given.prompts * GROUPS
    made = [
        partial(decoding, rows, given.tokens, peak),
        partial(gathering, given.tokens, peak),
        partial(building, given.tokens),
        partial(prefilling, given.tokens),
    ]
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    path = Path(__file__).parent / f"{slug}.md"
    print(told)
    parts = [told]
    with torch.no_grad():
        for call in made:
            parts.append(call().markdown())
            print(parts[-1], flush=True)
            path.write_text("\n".join(parts))


if __name__ == "__main__":
    main()
