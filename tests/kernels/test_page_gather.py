"""Copies of pages, native against the reference, and both against copies entry by entry."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from longspan_kernels.page_gather import page_admit, page_gather
from longspan_kernels.types import Pages

BACKENDS = ("reference", "native")


def ints(*rows: list[int]) -> torch.Tensor:
    width = max(len(row) for row in rows)
    return torch.tensor([row + [-(2**31)] * (width - len(row)) for row in rows], dtype=torch.int32)


def pages(*rows: list[tuple[int, int, int]], page: int = 8) -> Pages:
    """Rows of (source, target, size)."""
    columns = [ints(*([p[field] for p in row] for row in rows)) for field in range(3)]
    return Pages(*columns, torch.tensor([len(row) for row in rows], dtype=torch.int32), page)


def random_pages(rng: torch.Generator, rows: int, slots: int, pool: int, page: int) -> Pages:
    """Pages that fill a buffer from 0 on, from anywhere."""

    def number(below: int) -> int:
        return int(torch.randint(below, (), generator=rng))

    lists = []
    for _ in range(rows):
        row, target = [], 0
        for _ in range(number(6)):
            size = 1 + number(page)
            source = number(pool - size + 1) if number(2) else ~number(slots - size + 1)
            row.append((source, target, size))
            target += size
        lists.append(row)
    return pages(*lists, page=page)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    groups=st.integers(1, 3),
    heads=st.integers(1, 2),
    page=st.sampled_from((1, 3, 8)),
    dtype=st.sampled_from((torch.float32, torch.bfloat16, torch.float16, torch.int8)),
)
def test_every_entry_comes_from_its_source(
    seed: int, groups: int, heads: int, page: int, dtype: torch.dtype
) -> None:
    rng = torch.Generator().manual_seed(seed)
    slots, pool, size, cut = 41, 30, 8, 17
    rows = groups * heads
    wanted = random_pages(rng, rows, slots, pool, page)

    def noise(*shape: int) -> torch.Tensor:
        return (torch.randn(*shape, generator=rng) * 50).to(dtype)

    store = [noise(groups, slots + 3, size)[:, 3:] for _ in range(2)]
    cache = [noise(pool, size) for _ in range(2)]
    right = [torch.zeros(rows, 50, size, dtype=dtype) for _ in range(2)]
    for n in range(rows):
        for p in range(int(wanted.count_N[n])):
            source, target = int(wanted.source_NP[n, p]), int(wanted.target_NP[n, p])
            for t in range(int(wanted.size_NP[n, p])):
                for which in range(2):
                    right[which][n, target + t] = (
                        cache[which][source + t]
                        if source >= 0
                        else store[which][n // heads, ~source + t]
                    )
    for backend in BACKENDS:
        out = [torch.zeros(rows, 50, size, dtype=dtype) for _ in range(2)]
        parts = [tensor[:, :cut] for tensor in store], [tensor[:, cut:] for tensor in store]
        page_gather(*parts[0], *cache, wanted, *out, backend=backend, threads=1)
        page_gather(*parts[1], None, None, wanted, *out, first=cut, backend=backend, threads=2)
        assert all(torch.equal(a, b) for a, b in zip(out, right, strict=True)), backend


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_is_admitted_is_found_again(backend: str) -> None:
    buffer = [torch.randn(2, 20, 16) for _ in range(2)]
    cache = [torch.zeros(40, 16) for _ in range(2)]
    admitted = pages([(8, 3, 8), (-5, 0, 3), (32, 11, 2)], [(16, 0, 5)])
    page_admit(*buffer, admitted, *cache, backend=backend)  # type: ignore[arg-type]
    for rows, pool in zip(buffer, cache, strict=True):
        assert torch.equal(pool[8:16], rows[0, 3:11])
        assert torch.equal(pool[32:34], rows[0, 11:13])
        assert torch.equal(pool[16:21], rows[1, :5])
        assert not pool[:8].any()
        assert not pool[21:32].any()
        assert not pool[34:].any()


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_pages_touch_nothing(backend: str) -> None:
    empty = pages([], [])
    rows = [torch.full((2, 4, 8), 3.0) for _ in range(4)]
    page_gather(*rows[:2], None, None, empty, *rows[2:], backend=backend)  # type: ignore[arg-type]
    assert all((tensor == 3).all() for tensor in rows)


def test_errors_name_what_is_wrong() -> None:
    store, cache, out = torch.zeros(2, 9, 8), torch.zeros(16, 8), torch.zeros(4, 9, 8)
    one = pages([(0, 0, 2)], [(0, 0, 2)], [(0, 0, 2)], [(0, 0, 2)])
    for arguments, message in (
        ((store, store[:, 1:], None, None, one, out, out), r"keys have shape \[2, 9, 8\]"),
        ((store, store, None, None, one, out[:3], out[:3]), r"it should be \[3, P\]"),
        ((store, store, cache, None, one, out, out), "both or neither"),
        ((store, store, cache[:, :4], cache[:, :4], one, out, out), r"both should be \[V, 8\]"),
        ((store, store.half(), None, None, one, out, out), "all be of one type"),
        ((store, store, cache[:1], cache[:1], one, out, out), "beyond the cache"),
        ((store, store, cache, cache, one, out[:, :1], out[:, :1]), "beyond the buffer"),
    ):
        with pytest.raises(ValueError, match=message):
            page_gather(*arguments)  # type: ignore[arg-type]
    bad = Pages(one.source_NP, one.target_NP, one.size_NP, one.count_N[:1], 8)
    with pytest.raises(ValueError, match="count_N of the pages"):
        page_admit(out, out, bad, cache, cache)
