"""Merging is associative, has the empty part as its neutral element, and is attention over all."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from longspan_kernels.merge import merge
from longspan_kernels.types import Partial


def parts(seed: int, count: int, spread: float) -> list[Partial]:
    rng = torch.Generator().manual_seed(seed)
    return [
        Partial(torch.randn(3, 5, generator=rng), spread * torch.randn(3, generator=rng))
        for _ in range(count)
    ]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 7), st.floats(0, 40), st.integers(1, 6))
def test_any_grouping_gives_the_same(seed: int, count: int, spread: float, cut: int) -> None:
    given_parts = parts(seed, count, spread)
    empty = Partial(torch.zeros(3, 5), torch.full((3,), -float("inf")))
    cut = min(cut, count - 1)
    whole = merge(given_parts)
    halves = merge([merge(given_parts[:cut]), empty, merge(given_parts[cut:])])
    for left, right in zip(whole, halves, strict=True):
        torch.testing.assert_close(left, right, atol=1e-5, rtol=1e-5)
    weights = torch.stack([p.lse for p in given_parts]).softmax(0)
    right = (weights[..., None] * torch.stack([p.out for p in given_parts])).sum(0)
    torch.testing.assert_close(whole.out, right, atol=1e-5, rtol=1e-5)


def test_nothing_but_empty_parts_stays_empty() -> None:
    empty = Partial(torch.zeros(3, 5), torch.full((3,), -float("inf")))
    found = merge([empty, empty])
    assert not found.out.any()
    assert (found.lse == -float("inf")).all()
