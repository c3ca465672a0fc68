"""Attention over near, cached and distant keys and values: against plain attention, and what is
read from where.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, NamedTuple

import pytest
import torch

from longspan_kernels.block_cache import CacheSteps, StepCaches, packed
from longspan_kernels.cached_decode import CachedStore, PagePool, admit_pages, cached_decode
from longspan_kernels.sparse_decode import sparse_decode
from longspan_kernels.types import Runs

if TYPE_CHECKING:
    from longspan_kernels.dispatch import Backend

CUDA = torch.cuda.is_available()
NEAR = torch.device("cuda" if CUDA else "cpu")
GROUPS, PAGE = 2, 4
TRITON = pytest.param(
    "triton", marks=pytest.mark.skipif(not find_spec("triton"), reason="Triton is not installed")
)
DTYPES = [
    torch.float32,
    torch.float16,
    pytest.param(
        torch.bfloat16,
        marks=[
            pytest.mark.gpu,
            pytest.mark.skipif(not CUDA, reason="the interpreter computes bf16 wrongly"),
        ],
    ),
]


class Stretch(NamedTuple):
    first: int
    keys_GTD: torch.Tensor
    values_GTD: torch.Tensor


@dataclass(frozen=True)
class Given:
    """Everything in one place, and the same spread over places."""

    keys_NTD: torch.Tensor
    values_NTD: torch.Tensor
    store: CachedStore
    blocks: list[list[tuple[int, int]]]
    """By row: what a head may read of what is at home."""


def home(*tensors: torch.Tensor) -> list[torch.Tensor]:
    return [tensor.pin_memory() if CUDA else tensor for tensor in tensors]


def given(dtype: torch.dtype, width: int = 16, pages: int = 6, seed: int = 0) -> Given:
    """Two rows of 90 and 30 slots: 4 sinks near, then 60 at home in two parts, the rest near; the
    second row is near as a whole.
    """
    rng = torch.Generator().manual_seed(seed)
    keys_NTD, values_NTD = (
        torch.randn(2 * GROUPS, 90, width, generator=rng).to(dtype) for _ in "kv"
    )
    parts = []
    for first, stop in ((0, 40), (40, 64)):
        wide = [x[:GROUPS, first:stop].repeat(1, 2, 1) for x in (keys_NTD, values_NTD)]
        parts.append(Stretch(first, *(x[:, : stop - first] for x in home(*wide))))
    gap_2N = torch.tensor([[4] * GROUPS + [0] * GROUPS, [64] * GROUPS + [0] * GROUPS]).int()
    near = []
    for rows_NTD in (keys_NTD, values_NTD):
        rows_NCD = torch.full((2 * GROUPS, 40, width), float("nan"), dtype=dtype)
        rows_NCD[:GROUPS, :30] = torch.cat([rows_NTD[:GROUPS, :4], rows_NTD[:GROUPS, 64:]], 1)
        rows_NCD[GROUPS:, :30] = rows_NTD[GROUPS:, :30]
        near.append(rows_NCD.to(NEAR))
    pool = PagePool.of(pages, PAGE, near[0])
    store = CachedStore.of([parts, []], *near, gap_2N.to(NEAR), pool)
    sizes = torch.randint(1, 12, (30,), generator=rng).tolist()
    blocks, at = [], 4
    for size in sizes:
        blocks.append((at, min(size, 64 - at)))
        at += size
        if at >= 64:
            break
    return Given(keys_NTD, values_NTD, store, [blocks, []])


def wanted(case: Given, seed: int) -> Runs:
    """Near runs, and a few blocks from home for the first row's heads."""
    rng = torch.Generator().manual_seed(seed)
    rows = []
    for n in range(2 * GROUPS):
        blocks = case.blocks[n // GROUPS]
        kept = torch.randperm(len(blocks), generator=rng)[: 1 + n].tolist()
        steady = [(0, 4), (64, 26)] if n < GROUPS else [(0, 17 + n)]
        rows.append(steady + [blocks[number] for number in kept])
    width = max(map(len, rows))
    full = torch.tensor([row + [(-9, -9)] * (width - len(row)) for row in rows]).int()
    counts = torch.tensor(list(map(len, rows))).int()
    return Runs(full[..., 0].contiguous(), full[..., 1].contiguous(), counts)


def right(case: Given, q_XD: torch.Tensor, runs: Runs, softcap: float | None) -> torch.Tensor:
    return sparse_decode(
        q_XD, case.keys_NTD, case.values_NTD, runs, scale=0.2, softcap=softcap, backend="reference"
    ).out


def here(runs: Runs) -> Runs:
    assert runs.size_NK is not None
    return Runs(runs.start_NK.to(NEAR), runs.size_NK.to(NEAR), runs.count_N.to(NEAR))


def attended(
    case: Given, q_XD: torch.Tensor, runs: Runs, backend: Backend, softcap: float | None = None
) -> torch.Tensor:
    found = cached_decode(
        q_XD.to(NEAR), case.store, here(runs), scale=0.2, softcap=softcap, backend=backend
    )
    return found.out.cpu()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("backend", ["reference", "auto", TRITON])
@pytest.mark.parametrize(("heads", "width", "softcap"), [(1, 16, None), (3, 80, 2.0)])
def test_steps_beside_a_cache_read_what_plain_attention_reads(
    backend: Backend, dtype: torch.dtype, heads: int, width: int, softcap: float | None
) -> None:
    """With what earlier steps left in a pool too small for all of it."""
    case = given(dtype, width)
    caches = StepCaches([6, 0], page=PAGE, groups=GROUPS, policy="lfu")
    steps = CacheSteps(caches, width=8, most=5, device=NEAR)
    tolerance = {torch.float32: 2e-5, torch.float16: 2e-3, torch.bfloat16: 2e-2}[dtype]
    hits = 0
    for seed in range(8):
        runs = wanted(case, seed % 4)
        q_XD = torch.randn(2 * GROUPS * heads, width).to(dtype)
        steps.begin()
        admit_pages(case.store, steps.admitted_BA4, steps.count_B, backend=backend)
        found = attended(case, q_XD, runs, backend, softcap)
        torch.testing.assert_close(
            found, right(case, q_XD, runs, softcap), atol=tolerance, rtol=tolerance
        )
        say(steps, runs)
        counts = steps.wait()
        hits += counts[0].hit_entries
        assert counts[1] == (0, 0, 0)
        assert int(steps.count_B[0]) <= 5
    assert hits > 0


def say(steps: CacheSteps, runs: Runs) -> None:
    """Tell of the blocks at home, as a step does; the near runs come first and are none of it."""
    assert runs.size_NK is not None
    width = 8 - runs.size_NK.shape[1]
    both = runs.start_NK, runs.size_NK
    start_NK, size_NK = (torch.nn.functional.pad(x, (0, width)) for x in both)
    at_home_NK = (start_NK >= 4) & (start_NK < 64)
    at_home_NK[GROUPS:] = False
    steps.say(packed(start_NK, torch.where(at_home_NK, size_NK, 0), runs.count_N).to(NEAR))


@pytest.mark.parametrize("backend", ["reference", TRITON])
def test_a_page_is_read_where_it_is_cached_and_only_while_it_is(backend: Backend) -> None:
    """The pool is made to hold something else than home does, which shows who was read."""
    case = given(torch.float32)
    (start, size), (other, _) = [b for b in case.blocks[0] if b[1] > PAGE][:2]
    start_N1, size_N1 = (torch.tensor([[x]] * 2 + [[0]] * 2).int() for x in (start, size))
    runs = Runs(start_N1, size_N1, torch.tensor([1, 1, 0, 0]).int())
    q_XD = torch.randn(2 * GROUPS, 16)
    plain = attended(case, q_XD, runs, backend)
    torch.testing.assert_close(plain, right(case, q_XD, runs, None))

    def admit(*pages: tuple[int, int, int, int]) -> None:
        listed = torch.tensor([pages, pages]).int()
        count_B = torch.tensor([len(pages), 0]).int()
        admit_pages(case.store, *home(listed, count_B), backend=backend)

    admit((0, start, PAGE, 8), (0, start + PAGE, size - PAGE, 0))
    torch.testing.assert_close(attended(case, q_XD, runs, backend), plain)
    case.store.pool.values_VD[8] += 100.0  # first slot of the block
    seen = attended(case, q_XD, runs, backend)
    assert (seen[0] - plain[0]).abs().max() > 1
    torch.testing.assert_close(seen[1:], plain[1:])  # another head's block of that name is not it
    admit((1, other, PAGE, 8))  # takes the page
    torch.testing.assert_close(attended(case, q_XD, runs, backend), plain)


@pytest.mark.parametrize("backend", ["reference", TRITON])
def test_a_page_that_another_layer_is_given_is_no_longer_this_one_s(backend: Backend) -> None:
    """Layers in one pool: each reads its own block of a name, at home once its page is gone."""
    below, case = given(torch.float32, seed=1), given(torch.float32)
    above = replace(case, store=replace(case.store, pool=below.store.pool, layer=1))
    start = below.blocks[0][0][0]
    assert start == above.blocks[0][0][0]
    run_N1 = [torch.tensor([[x]] * 2 + [[0]] * 2).int() for x in (start, 1)]
    runs = Runs(run_N1[0], run_N1[1], torch.tensor([1, 1, 0, 0]).int())
    q_XD = torch.randn(2 * GROUPS, 16)
    listed_BA4 = torch.tensor([[(0, start, 1, PAGE)]] * 2).int()
    pages = home(listed_BA4, torch.tensor([1, 0]).int())
    for last, other in ((below, above), (above, below), (below, above)):
        admit_pages(last.store, *pages, backend=backend)
        last.store.pool.values_VD[PAGE] += 100.0  # which shows who reads it
        away = (attended(last, q_XD, runs, backend) - right(last, q_XD, runs, None)).abs()
        assert away[0].max() > 1
        found = attended(other, q_XD, runs, backend)
        torch.testing.assert_close(found, right(other, q_XD, runs, None))


@pytest.mark.parametrize("backend", ["reference", TRITON])
def test_what_was_let_in_twice_is_the_same(backend: Backend) -> None:
    case = given(torch.float16)
    start, size = case.blocks[0][0]
    listed_BA4 = torch.tensor([[(1, start, min(size, PAGE), 4)]] * 2).int()
    pages = home(listed_BA4, torch.tensor([1, 0]).int())
    states = []
    for _ in range(2):
        admit_pages(case.store, *pages, backend=backend)
        store = case.store
        pool = store.pool
        held = (pool.keys_VD, pool.values_VD, store.row_of_NT, pool.owner_P)
        states.append([tensor.cpu().clone() for tensor in held])
    for first, again in zip(*states, strict=True):
        assert torch.equal(first, again)
    assert torch.equal(states[0][0][4], case.keys_NTD[1, start])
    assert int(states[0][3][1]) == 1 * store.row_of_NT.shape[1] + start


def test_bad_calls_name_the_argument() -> None:
    case = given(torch.float32)
    runs = here(wanted(case, 0))
    q_XD = torch.randn(4, 16).to(NEAR)
    for q, asked, message in (
        (q_XD[:3], runs, r"q has shape \[3, 16\]; it should be \[a multiple of 4, 16\]"),
        (q_XD, replace(runs, size_NK=None), "runs have no sizes"),
        (q_XD, replace(runs, count_N=runs.count_N[:2]), "count_N"),
    ):
        with pytest.raises(ValueError, match=message):
            cached_decode(q, case.store, asked, scale=1.0)
    with pytest.raises(ValueError, match=r"pages have shape \[1, 2, 3\]"):
        admit_pages(case.store, torch.zeros(1, 2, 3).int(), torch.zeros(1).int())
    with pytest.raises(ValueError, match=r"right is int32"):
        admit_pages(case.store, torch.zeros(2, 1, 4), torch.zeros(2).int())
    part = Stretch(0, *(torch.randn(GROUPS, 16, 9).mT for _ in "kv"))
    near = (case.store.near_keys_NCD, case.store.near_values_NCD, case.store.gap_2N)
    with pytest.raises(ValueError, match=r"its tokens should be 16 apart"):
        CachedStore.of([[part], []], *near, case.store.pool)
