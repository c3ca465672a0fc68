"""The native merge against the reference."""

from __future__ import annotations

import pytest
import torch
from kernel_cases import assert_same

from longspan_kernels.dense_decode import dense_decode
from longspan_kernels.merge import merge
from longspan_kernels.types import Partial

EMPTY = float("-inf")


def partials(count: int, *shape: int) -> list[Partial]:
    return [Partial(torch.randn(*shape), torch.randn(*shape[:-1]) * 30) for _ in range(count)]


@pytest.mark.parametrize("shape", [(1, 8), (5, 64), (32, 80), (3, 7, 96), (8, 33, 128), (2, 13)])
@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_agrees_with_reference(isa: str, shape: tuple[int, ...], count: int) -> None:
    parts = partials(count, *shape)
    parts[0].lse.flatten()[0] = EMPTY
    parts[0].out.reshape(-1, shape[-1])[0] = 0
    assert_same(merge(parts, backend=isa), merge(parts, backend="reference"))


def test_all_parts_empty(isa: str) -> None:
    empty = Partial(torch.zeros(3, 16), torch.full((3,), EMPTY))
    merged = merge([empty, empty], backend=isa)
    assert merged.lse.eq(EMPTY).all()
    assert merged.out.eq(0).all()


def test_extreme_sums_do_not_overflow(isa: str) -> None:
    parts = [Partial(torch.full((1, 8), float(i)), torch.tensor([1e30 * i])) for i in (1, 2)]
    assert_same(merge(parts, backend=isa), Partial(torch.full((1, 8), 2.0), torch.tensor([2e30])))


def test_parts_of_a_whole(isa: str) -> None:
    q, k, v = torch.randn(6, 32), torch.randn(2, 90, 32), torch.randn(2, 90, 32)
    cuts = [(0, 1), (1, 40), (40, 90)]
    parts = [dense_decode(q, k[:, a:b], v[:, a:b], scale=0.2, backend=isa) for a, b in cuts]
    assert_same(merge(parts, backend=isa), dense_decode(q, k, v, scale=0.2, backend="reference"))


def test_stacks_of_parts_are_parts(isa: str) -> None:
    stacks = [Partial(torch.randn(n, 4, 9), torch.randn(n, 4)) for n in (3, 1, 2)]
    parts = [Partial(*both) for stack in stacks for both in zip(*stack, strict=True)]
    found = merge(stacks, stacked=True, backend=isa)
    assert_same(found, merge(parts, backend="reference"))
    with pytest.raises(ValueError, match="one shape"):
        merge([stacks[0], Partial(torch.randn(2, 5, 9), torch.randn(2, 5))], stacked=True)


def test_threads_change_nothing(isa: str) -> None:
    parts = partials(3, 400, 128)
    one, two = (merge(parts, backend=isa, threads=n) for n in (1, 2))
    assert torch.equal(one.out, two.out)
    assert torch.equal(one.lse, two.lse)


def test_other_dtypes_go_to_the_reference() -> None:
    parts = [Partial(p.out.double(), p.lse.double()) for p in partials(2, 4, 8)]
    assert merge(parts).out.dtype == torch.float64
    with pytest.raises(ValueError, match="float64"):
        merge(parts, backend="native")


def test_errors_name_what_is_wrong() -> None:
    with pytest.raises(ValueError, match="partials is empty"):
        merge([])
    with pytest.raises(ValueError, match=r"out \[4, 8\] with lse \[3\]"):
        merge([*partials(1, 4, 8), Partial(torch.zeros(4, 8), torch.zeros(3))])
