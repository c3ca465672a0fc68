"""Decode operations on a GPU."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from gpu_timing import (
    BUDGET,
    CLUSTER,
    ESTIMATE,
    GROUPS,
    PAGE,
    RATIO,
    SCALE,
    WIDTH,
    attended,
    count,
    ran,
    row,
    seconds,
)
from tables import Table

from longspan_kernels.cached_decode import CachedStore, PagePool, admit_pages, cached_decode
from longspan_kernels.dense_decode import dense_decode
from longspan_kernels.page_gather import page_gather
from longspan_kernels.sparse_decode import sparse_decode
from longspan_kernels.types import Pages, Runs
from longspan_kernels.wave_decode.mass import promoted
from longspan_kernels.wave_search import wave_search

if TYPE_CHECKING:
    from torch import Tensor


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

    given: dict[str, Any] = {"retrieve": read, "estimate": wanted - read, "want_scores": False}
    most_2G = torch.tensor([[read], [wanted - read]], device="cuda").expand(-1, rows).int()
    other = seconds(by_torch)
    for name, limits in (("scores sorted", None), ("selected as in a graph", most_2G)):
        call = partial(wave_search, q, centroids, sizes, scale=SCALE, most_2G=limits, **given)
        taken = seconds(call)
        table.rows.append(row(f"wave_search, {name}", taken, centroids.nbytes, peak, other))
    hits = call(want_scores=True)
    assert hits.score_HC is not None
    assert hits.count_2G is not None
    log_size_GC = sizes.float().log()
    best = Runs(hits.retrieve_GK, None, hits.count_2G[0])
    rest = Runs(hits.estimate_GK, None, hits.count_2G[1])
    weights = hits.score_HC, log_size_GC + 0.3, log_size_GC, None
    errors = partial(promoted, best, rest, *weights, tolerance=1e-4)
    other = seconds(partial(errors, backend="reference"))
    taken = seconds(errors)
    table.rows.append(row("promoted", taken, hits.score_HC.nbytes, peak, other))
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


def cached(tokens: int, peak: float) -> Table:
    """Attention over what is cached and, read over the bus by the kernel, what is not."""
    head = ("pages found in the cache", "us", "GB/s", "of the copy's", "-", "-")
    table = Table(f"cached_decode: {GROUPS} KV heads, clusters of {CLUSTER} in pinned memory", head)
    k, v = (torch.randn(GROUPS, tokens, WIDTH).bfloat16().pin_memory() for _ in "kv")
    part = SimpleNamespace(first=0, keys_GTD=k, values_GTD=v)
    near_k, near_v = (torch.zeros(GROUPS, 8, WIDTH, device="cuda").bfloat16() for _ in "kv")
    gap_2N = torch.tensor([[0], [tokens]], device="cuda").expand(-1, GROUPS).int().contiguous()
    clusters, a_cluster = tokens // CLUSTER, CLUSTER // PAGE
    read = round(BUDGET * clusters)
    start = torch.stack([torch.randperm(clusters)[:read] for _ in range(GROUPS)]) * CLUSTER
    begins = (start[..., None] + torch.arange(a_cluster) * PAGE).flatten(1).int()
    start = start.cuda().int()
    runs = Runs(start, torch.full_like(start, CLUSTER), count(start))
    q = torch.randn(GROUPS * RATIO, WIDTH, device="cuda").bfloat16()
    for share in (1.0, 0.8, 0.0):
        pages = begins.numel()
        store = CachedStore.of([[part]], near_k, near_v, gap_2N, PagePool.of(pages, PAGE, near_k))
        hit = torch.rand(begins.shape) < share
        rows = torch.arange(pages, dtype=torch.int32).view_as(begins) * PAGE
        heads = torch.arange(GROUPS, dtype=torch.int32)[:, None].expand_as(begins)
        listed = torch.stack([heads, begins, torch.full_like(begins, PAGE), rows], -1)[hit]
        lists = listed[None].pin_memory(), torch.tensor([len(listed)]).int().pin_memory()
        if len(listed):
            admitted = ran(partial(admit_pages, store, *lists))
            name = f"admit_pages, {len(listed) * 4 * PAGE * WIDTH / 1e6:.1f} MB"
            table.rows.append(row(name, admitted, len(listed) * 8 * PAGE * WIDTH, peak, None))
        taken = seconds(partial(cached_decode, q, store, runs, scale=SCALE))
        moved = begins.numel() * PAGE * WIDTH * 4
        table.rows.append(row(f"{share:.0%}", taken, moved, peak, None))
    return table
