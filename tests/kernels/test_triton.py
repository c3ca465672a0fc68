"""The Triton kernels against the references: interpreted on the CPU, run as they are on a GPU."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from kernel_cases import Rows, assert_same, rows, runs
from triton_cases import CUDA, DEVICE, DTYPES, TOLERANCE, both, moved

from longspan_kernels.block_sparse_prefill import block_sparse_prefill
from longspan_kernels.dense_decode import dense_decode
from longspan_kernels.merge import merge
from longspan_kernels.page_gather import page_admit, page_gather
from longspan_kernels.sparse_decode import sparse_decode
from longspan_kernels.types import Pages, Partial, Runs
from longspan_kernels.wave_decode.mass import promoted, spread_bias
from longspan_kernels.wave_search import wave_search

pytestmark = pytest.mark.skipif(not find_spec("triton"), reason="Triton is not installed")
EMPTY = float("-inf")


def scales(keys: Rows, values: Rows) -> dict[str, Any]:
    return {"key_scale_GT": keys.scale_GT, "value_scale_GT": values.scale_GT}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("groups", "a_group", "entries", "width"), [(1, 1, 1, 64), (2, 3, 70, 80), (1, 33, 333, 256)]
)
def test_dense_decode(
    dtype: torch.dtype, groups: int, a_group: int, entries: int, width: int
) -> None:
    keys, values = (rows(groups, entries, width, dtype, strided=entries > 1) for _ in "kv")
    q_HD = torch.randn(groups * a_group, width, dtype=torch.float32)
    q_HD = q_HD.to(torch.float16 if dtype == torch.int8 else dtype)
    more = {"softcap": 2.0, "bias_GT": torch.randn(groups, entries)} if a_group == 3 else {}
    inputs = (q_HD, keys.data_GTD, values.data_GTD)
    found, expected = both(dense_decode, *inputs, scale=width**-0.5, **scales(keys, values), **more)
    assert_same(found, expected, TOLERANCE[dtype], TOLERANCE[dtype])


@pytest.mark.parametrize("largest", [1.0, 1e-3])
def test_small_weights_of_small_values_are_kept(largest: float) -> None:
    """In half precision, which has none for the product of a weight and a scale of values."""
    q_HD, keys_GTD = torch.zeros(1, 16).half(), torch.zeros(1, 900, 16, dtype=torch.int8)
    q_HD[:, 0], keys_GTD[:, 0, 0] = 1, 127
    values_GTD = torch.full((1, 900, 16), 127, dtype=torch.int8)
    scale_GT = torch.full((1, 900), largest / 127)
    found, expected = both(
        dense_decode, q_HD, keys_GTD, values_GTD, scale=1.0,
        key_scale_GT=torch.full((1, 900), 8 / 127), value_scale_GT=scale_GT,
    )  # fmt: skip
    assert_same(found, expected, 2e-3 * largest, 2e-3)
    torch.testing.assert_close(found.out.cpu() / largest, torch.ones(1, 16), atol=0, rtol=2e-3)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("sized", [False, True])
@pytest.mark.parametrize(("rows_of", "first"), [("G", 0), ("H", 5), ("G", -40)])
def test_sparse_decode(dtype: torch.dtype, sized: bool, rows_of: str, first: int) -> None:
    keys, values = (rows(2, 150, 96, dtype, strided=True) for _ in "kv")
    q_HD = torch.randn(6, 96).to(torch.float16 if dtype == torch.int8 else dtype)
    which = runs(2 if rows_of == "G" else 6, 150, 40, sized)
    found, expected = both(
        sparse_decode, q_HD, keys.data_GTD, values.data_GTD, which,
        scale=0.1, softcap=3.0, first=first, bias_GT=torch.randn(2, 150), **scales(keys, values),
    )  # fmt: skip
    assert_same(found, expected, TOLERANCE[dtype], TOLERANCE[dtype])


@pytest.mark.parametrize("sizes", [(1,), (0, 1), (1, 0, 0, 2), (70, 1, 1, 1, 0, 200)])
def test_sparse_decode_of_many_small_runs(sizes: tuple[int, ...]) -> None:
    """More runs than a tile has places, none of whose entries is missed or read twice."""
    size_NK = torch.tensor([sizes[i % len(sizes)] for i in range(260)]).int().repeat(2, 1)
    start_NK = size_NK.cumsum(1).int() - size_NK + 3
    count_N = torch.tensor([260, 131]).int()
    entries = int(size_NK[0].sum()) + 9
    keys, values = (rows(2, entries, 16, torch.float32) for _ in "kv")
    q_HD, order = torch.randn(4, 16), torch.randperm(260)
    given = Runs(start_NK[:, order].contiguous(), size_NK[:, order].contiguous(), count_N)
    assert_same(*both(sparse_decode, q_HD, keys.data_GTD, values.data_GTD, given, scale=0.3))


def test_rows_that_share_one_store_are_folded_into_the_groups() -> None:
    """How a batch is attended: the G axis has stride 0, each row names its own entries."""
    store_1TD = torch.randn(1, 200, 64)
    keys_GTD = store_1TD.expand(4, -1, -1)
    start_NK = torch.tensor([[0, 20], [50, 60], [100, 0], [150, 180]], dtype=torch.int32)
    size_NK = torch.tensor([[4, 30], [10, 40], [33, 7], [1, 20]], dtype=torch.int32)
    which = Runs(start_NK, size_NK, torch.tensor([2, 2, 1, 2], dtype=torch.int32))
    assert_same(*both(sparse_decode, torch.randn(8, 64), keys_GTD, keys_GTD, which, scale=0.2))


def test_what_is_not_named_is_not_read() -> None:
    k_GTD = torch.randn(1, 40, 64)
    k_GTD[:, 20:] = float("nan")
    start_NK, size_NK = torch.tensor([[3, 9]]).int(), torch.tensor([[2, 11]]).int()
    which = Runs(start_NK, size_NK, torch.tensor([2]).int())
    found, _ = both(sparse_decode, torch.randn(2, 64), k_GTD, k_GTD, which, scale=0.1)
    assert found.out.isfinite().all()


def test_nothing_and_nan() -> None:
    q_HD, k_GTD = torch.randn(2, 64), torch.randn(2, 65, 64)
    k_GTD[1, 60] = float("nan")
    start_NK = torch.zeros(2, 3, dtype=torch.int32)
    count_N = torch.tensor([0, 1], dtype=torch.int32)
    for size_NK in (None, torch.zeros_like(start_NK)):
        found, _ = both(
            sparse_decode, q_HD, k_GTD, k_GTD, Runs(start_NK, size_NK, count_N), scale=1.0
        )
        assert found.lse[0] == EMPTY
        assert found.out[0].eq(0).all()
    found, _ = both(dense_decode, q_HD, k_GTD, k_GTD, scale=1.0)
    assert found.out[0].isfinite().all()
    assert found.out[1].isnan().all()
    masked, _ = both(
        dense_decode, q_HD, k_GTD, k_GTD, scale=1.0, bias_GT=torch.full((2, 65), EMPTY)
    )
    assert masked.lse[0] == EMPTY


@pytest.mark.parametrize("shape", [(1, 8), (5, 80), (3, 7, 13)])
@pytest.mark.parametrize("count", [1, 2, 19])
def test_merge(shape: tuple[int, ...], count: int) -> None:
    parts = [Partial(torch.randn(*shape), torch.randn(*shape[:-1]) * 30) for _ in range(count)]
    for part in parts:  # one row is empty in every part
        part.lse.flatten()[0] = EMPTY
        part.out.reshape(-1, shape[-1])[0] = 0
    there = [Partial(moved(part.out), moved(part.lse)) for part in parts]
    found = merge(there, backend="triton")
    right = merge(parts, backend="reference")
    assert_same(Partial(found.out.cpu(), found.lse.cpu()), right)
    # the same parts in stacks of uneven heights
    for heights in ((count,), (1, count - 1), (1, 1, count - 2)):
        if heights[-1] < 1:
            continue
        outs, lses = (torch.stack(each).split(heights) for each in zip(*there, strict=True))
        stacks = [Partial(*both) for both in zip(outs, lses, strict=True)]
        found = merge(stacks, stacked=True, backend="triton")
        assert_same(Partial(found.out.cpu(), found.lse.cpu()), right)


@pytest.mark.parametrize("dtype", [d for d in DTYPES if d is not torch.int8], ids=str)
@pytest.mark.parametrize(
    ("clusters", "budget", "groups", "a_group", "width"),
    [(1, (1, 0), 1, 1, 8), (65, (3, 20), 2, 3, 80), (1030, (20, 200), 2, 4, 128)],
)
def test_wave_search(
    dtype: torch.dtype,
    clusters: int,
    budget: tuple[int, int],
    groups: int,
    a_group: int,
    width: int,
) -> None:
    q_HD = torch.randn(groups * a_group, width)
    c_GCD = torch.randn(groups, clusters, width).to(dtype)
    size_GC = torch.randint(0, 3, (groups, clusters)).int()
    options = {"retrieve": budget[0], "estimate": budget[1], "scale": width**-0.5}
    votes: list[dict[str, Any]] = [{}]
    if a_group == 3:
        extra = {"softcap": 2.0, "bias_GC": torch.rand(groups, clusters)}
        votes = [{"vote": v, "weight_H": torch.rand(6), **extra} for v in ("sum", "max")]
    for vote in votes:
        found, expected = both(wave_search, q_HD, c_GCD, size_GC, **options, **vote)
        torch.testing.assert_close(found.score_HC, expected.score_HC, rtol=1e-5, atol=2e-5)
        assert torch.equal(found.live_G, expected.live_G)
        for g, live in enumerate(found.live_G.tolist()):
            mine, theirs = (
                torch.cat([h.retrieve_GK[g], h.estimate_GK[g]])[:live] for h in (found, expected)
            )
            assert mine[: budget[0]].tolist() == theirs[: budget[0]].tolist()
            assert (size_GC[g, mine.long()] > 0).all()


@pytest.mark.parametrize(("clusters", "held"), [(9, 16384), (300, 256), (1100, 16384), (1100, 9)])
def test_wave_search_with_limits_of_its_own_a_row(
    clusters: int, held: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`held`: with how many clusters a row is one that a program holds."""
    from longspan_kernels.wave_search import select_triton

    monkeypatch.setattr(select_triton, "HELD", held)
    monkeypatch.setattr(select_triton, "READ", 128)
    groups, retrieve, estimate = 5, 4, clusters // 4
    q_HD = torch.randn(2 * groups, 32)
    c_GCD = torch.randn(groups, clusters, 32)
    c_GCD[2, 5:] = c_GCD[2, 5]  # all alike: ties at both limits
    size_GC = torch.randint(0, 3, (groups, clusters)).int()
    size_GC[3, 2:] = 0
    most_2G = torch.tensor([[4, 2, 3, 4, 0], [estimate, 1, estimate, estimate, 2]]).int()
    options = {"retrieve": retrieve, "estimate": estimate, "scale": 1.0, "most_2G": most_2G}
    found, expected = both(wave_search, q_HD, c_GCD, size_GC, want_scores=False, **options)
    assert torch.equal(found.count_2G, expected.count_2G)
    assert found.count_2G[0, 3] + found.count_2G[1, 3] == (size_GC[3, :2] > 0).sum()
    for hits in (found, wave_search(q_HD, c_GCD, size_GC, want_scores=False, **options)):
        for g in range(groups):
            for number, name in enumerate(("retrieve_GK", "estimate_GK")):
                count = int(found.count_2G[number, g])
                mine, theirs = (getattr(h, name)[g, :count].tolist() for h in (hits, expected))
                assert len(set(mine)) == count
                assert g == 2 or set(mine) == set(theirs)
                assert (size_GC[g, mine] > 0).all()
        first, second = (hits.retrieve_GK[2, :3], hits.estimate_GK[2, : hits.count_2G[1, 2]])
        assert not set(first.tolist()) & set(second.tolist())


@pytest.mark.parametrize("held", [16384, 9])
def test_votes_that_are_nan_fill_no_more_than_their_list(
    held: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPU's own NaN has the largest bits that there are."""
    from longspan_kernels.wave_search import select_triton

    monkeypatch.setattr(select_triton, "HELD", held)
    monkeypatch.setattr(select_triton, "READ", 16)
    vote_GC = torch.rand(3, 40)
    vote_GC[1] = torch.full((40,), 0x7FFFFFFF, dtype=torch.int32).view(torch.float32)
    vote_GC[1, 30:] = -torch.inf
    most_2G = torch.tensor([[3, 2, 3], [5, 5, 4]]).int()
    lists: list[torch.Tensor] = []

    def room(*shape: int, **options: Any) -> torch.Tensor:
        """With more behind it, where nothing may be written."""
        size = int(torch.tensor(shape).prod())
        lists.append(torch.full((size + 100,), -7, dtype=torch.int32, device=DEVICE))
        return lists[-1][:size].view(shape)

    with monkeypatch.context() as patch:
        patch.setattr(select_triton.torch, "empty", room)
        first, second, count = select_triton.selected(vote_GC.to(DEVICE), 3, 5, most_2G.to(DEVICE))
    assert count.tolist() == most_2G.tolist()
    assert all((each[-100:] == -7).all() for each in lists)
    for g, (most, further) in enumerate(zip(*most_2G.tolist(), strict=True)):
        ids = first[g, :most].tolist() + second[g, :further].tolist()
        assert len(set(ids)) == most + further
        assert all(0 <= each < (30 if g == 1 else 40) for each in ids)
    order = vote_GC[0].argsort(descending=True)
    assert set(first[0].tolist()) == set(order[:3].tolist())


@pytest.mark.parametrize("dtype", [d for d in DTYPES if d is not torch.int8], ids=str)
@pytest.mark.parametrize(
    ("heads", "groups", "positions", "entries", "width", "block", "causal", "softcap"),
    [
        (2, 1, 37, 90, 24, 32, True, None),
        (2, 2, 20, 33, 80, 5, False, 2.0),
        (2, 1, 150, 390, 64, 128, True, None),  # several tiles a block, some without a mask
        (1, 1, 70, 300, 136, 64, True, 30.0),
    ],
)
def test_block_sparse_prefill(
    dtype: torch.dtype,
    heads: int,
    groups: int,
    positions: int,
    entries: int,
    width: int,
    block: int,
    causal: bool,
    softcap: float | None,
) -> None:
    q_HQD = torch.randn(heads, positions, width).to(dtype)
    k_GTD, v_GTD = (torch.randn(groups, entries, width).to(dtype) for _ in "kv")
    blocks_HXY = torch.rand(heads, -(-positions // block), -(-entries // block)) < 0.5
    blocks_HXY[0, 0] = False
    columns_HT = torch.rand(heads, entries) < 0.1
    for columns in (columns_HT, None):
        found, expected = both(
            block_sparse_prefill, q_HQD, k_GTD, v_GTD, blocks_HXY,
            columns_HT=columns, block=block, scale=0.2, softcap=softcap, causal=causal,
        )  # fmt: skip
        assert_same(found, expected, TOLERANCE[dtype], TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", [d for d in DTYPES if d is not torch.int8], ids=str)
@pytest.mark.parametrize("first", [0, 5])
def test_pages(dtype: torch.dtype, first: int) -> None:
    store_GTD = [moved(torch.randn(2, 60, 24)).to(dtype) for _ in "kv"]
    cache_VD = [moved(torch.randn(40, 24)).to(dtype) for _ in "kv"]
    source_NP = moved(torch.tensor([[-4, 8, -51, 16], [-60, 32, -59, 1]]).int())
    target_NP = moved(torch.tensor([[0, 8, 16, 24]] * 2).int())
    size_NP = moved(torch.tensor([[8, 5, 3, 8], [1, 8, 2, 7]]).int())
    pages = Pages(source_NP, target_NP, size_NP, moved(torch.tensor([3, 4]).int()), 8)
    for cache in (cache_VD, (None, None)):
        buffers = [
            [torch.full((2, 32, 24), -7.0, dtype=dtype, device=DEVICE) for _ in "kv"] for _ in "ab"
        ]
        for backend, (k, v) in zip(("triton", "reference"), buffers, strict=True):
            page_gather(*store_GTD, *cache, pages, k, v, first=first, backend=backend)
        for found, expected in zip(*buffers, strict=True):
            assert torch.equal(found, expected)
            assert (found != -7).any()
    caches = [[x.clone() for x in cache_VD] for _ in "ab"]
    buffer_NED = moved(torch.randn(2, 32, 24)).to(dtype)
    for backend, (k, v) in zip(("triton", "reference"), caches, strict=True):
        page_admit(buffer_NED, -buffer_NED, pages, k, v, backend=backend)
    for found, expected, before in zip(*caches, cache_VD, strict=True):
        assert torch.equal(found, expected)
        assert not torch.equal(found, before)


@pytest.mark.gpu
@pytest.mark.skipif(not CUDA, reason="no CUDA device: nothing reads pinned memory over a bus")
def test_pages_from_pinned_host_memory() -> None:
    store_GTD = [torch.randn(2, 60, 24).pin_memory() for _ in "kv"]
    lists = torch.tensor([[-1, -31]]).int(), torch.tensor([[0, 8]]).int(), torch.full((1, 2), 8)
    source, target, size = (moved(x.int().expand(2, 2).contiguous()) for x in lists)
    pages = Pages(source, target, size, moved(torch.tensor([2, 2]).int()), 8)
    k, v = (torch.zeros(2, 16, 24, device=DEVICE) for _ in "kv")
    page_gather(*store_GTD, None, None, pages, k, v, backend="triton")
    for found, store in ((k, store_GTD[0]), (v, store_GTD[1])):
        assert torch.equal(found.cpu(), torch.cat([store[:, :8], store[:, 30:38]], 1))


def test_errors_name_what_is_wrong() -> None:
    for width, dtype, message in (
        (12, torch.float32, "head size is 12"),
        (264, torch.float32, "head size is 264"),
        (64, torch.float64, "no Triton kernel reads torch.float64"),
    ):
        x = torch.zeros(2, 3, width, dtype=dtype)
        with pytest.raises(ValueError, match=message):
            dense_decode(x[:, 0], x, x, scale=1.0, backend="triton")


def test_every_kernel_compiles_for_hopper(tmp_path: Path) -> None:
    """With the types and sizes of real launches: what the interpreter does not look at."""
    script = Path(__file__).with_name("compile_triton.py")
    clean = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, script],
        env=clean | {"TRITON_CACHE_DIR": str(tmp_path), "TRITON_DUMP_PTXAS_LOG": "1"},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    kernels = [json.loads(line) for line in done.stdout.splitlines()]
    named = {kernel["kernel"] for kernel in kernels}
    written = sorted((Path(__file__).parents[2] / "kernels/longspan_kernels").glob("*/*triton.py"))
    for folder in {path.parent for path in written}:  # some are launched by the file beside theirs
        text = "\n".join(path.read_text() for path in written if path.parent == folder)
        kept = re.findall(r"@triton\.jit(?:\(.*\))?\ndef (\w+)", text)
        launched = {name for name in kept if re.search(rf"\b{name}\[[^]]*\]\(", text)}
        assert launched
        assert launched <= named, f"{folder} launches {sorted(launched - named)}, never compiled"
    assert {kernel["kernel"] for kernel in kernels if kernel["releases"]} == {"release"}
    assert max(kernel["shared"] for kernel in kernels) <= 227 * 1024, "more than a Hopper SM has"
    # of the zeros and ones that `update` multiplies each product waits for the one before
    assert {kernel["kernel"] for kernel in kernels if kernel["serialised"]} <= {"update"}
    spilled = {kernel["kernel"]: kernel.get("spilled", 0) for kernel in kernels}
    assert max(spilled.values()) <= 16, f"bytes that registers do not hold: {spilled}"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize(("heads", "width"), [(2, 64), (7, 80), (8, 256)])
def test_what_clusters_weigh(dtype: torch.dtype, heads: int, width: int) -> None:
    """Over where masses freeze, in rows of buffers that are longer."""
    log_size_GC = torch.randint(1, 60, (2, 1500)).float().log()[:, :1100]
    spread_GC = 3 * torch.rand(2, 1100) ** 2
    q_HD = torch.randn(2 * heads, width).to(dtype)
    inputs = [moved(each) for each in (log_size_GC, spread_GC, q_HD)]
    found = spread_bias(*inputs, 0.3, backend="triton").cpu()
    right = spread_bias(log_size_GC, spread_GC, q_HD, 0.3, backend="reference")
    frozen = right > 3 * log_size_GC
    assert frozen.any()
    assert not frozen.all()
    torch.testing.assert_close(found, right, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("heads", "clusters", "best"), [(1, 40, 3), (4, 2500, 9), (7, 300, 0)])
@pytest.mark.parametrize("exact", [True, False])
def test_what_is_read_instead_of_estimated(
    heads: int, clusters: int, best: int, exact: bool
) -> None:
    rows, estimate = 3, clusters // 3
    score_HC = 2 * torch.randn(rows * heads, clusters)
    score_HC[:, clusters // 2 :: 5] = -torch.inf  # clusters without members
    log_size_GC = torch.randint(1, 60, (rows, clusters)).float().log()
    bias_GC = log_size_GC + torch.rand(rows, clusters)
    bias_GC[:, ::3] = log_size_GC[:, ::3]  # what is estimated exactly
    id_GK = torch.rand(rows, clusters).argsort(1)[:, : best + estimate].int()
    count_2G = torch.tensor([[best, 0, best // 2], [estimate, estimate // 2, 0]]).int()
    id_GK[1, best + estimate // 2 :] = 2**31 - 1  # behind the count lies anything
    read, rest = Runs(id_GK[:, :best], None, count_2G[0]), Runs(id_GK[:, best:], None, count_2G[1])
    lse_H = torch.randn(rows * heads) + 5 if exact else None
    given = score_HC, bias_GC, log_size_GC, lse_H
    some = 0
    for tolerance in (1e-9, 0.002, 1.0):
        mine = promoted(*moved([read, rest]), *moved(list(given)), tolerance, backend="triton")
        right = promoted(read, rest, *given, tolerance, backend="reference")
        for found, expected in zip(mine, right, strict=True):
            assert found.count_N.tolist() == expected.count_N.tolist()
            for g, count in enumerate(expected.count_N.tolist()):
                assert found.start_NK[g, :count].tolist() == expected.start_NK[g, :count].tolist()
        more_G = right[0].count_N - read.count_N
        assert more_G.tolist() == (rest.count_N - right[1].count_N).tolist()
        some += int(more_G.sum() > 0)
        assert (tolerance < 1) or not more_G.any()
    assert some > 0
