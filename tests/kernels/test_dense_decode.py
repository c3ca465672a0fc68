"""Native decode attention against the reference: sizes, storage, instruction sets, hard data."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from kernel_cases import HEAD_SIZES, LENGTHS, STORAGE, Rows, assert_same, rows

from longspan_kernels.dense_decode import dense_decode
from longspan_kernels.dispatch import warn_slow

if TYPE_CHECKING:
    from longspan_kernels.types import Partial

EMPTY = float("-inf")


def attend(
    q_HD: torch.Tensor, keys: Rows, values: Rows, backend: str, **options: object
) -> Partial:
    settings = {"scale": q_HD.shape[-1] ** -0.5, "threads": 1, **options}
    return dense_decode(
        q_HD,
        keys.data_GTD,
        values.data_GTD,
        key_scale_GT=keys.scale_GT,
        value_scale_GT=values.scale_GT,
        backend=backend,  # type: ignore[arg-type]
        **settings,  # type: ignore[arg-type]
    )


def compare(q_HD: torch.Tensor, keys: Rows, values: Rows, isa: str, **options: object) -> None:
    assert_same(
        attend(q_HD, keys, values, isa, **options),
        attend(q_HD, keys, values, "reference", **options),
    )


@pytest.mark.parametrize("dtype", STORAGE, ids=str)
@pytest.mark.parametrize("width", HEAD_SIZES)
def test_sizes(isa: str, dtype: torch.dtype, width: int) -> None:
    for case, entries in enumerate(LENGTHS):
        groups = 1 + (case + width // 8) % 8
        for heads_a_group in (1 + case, 8 - case):
            keys, values = (
                rows(groups, entries, width, dtype, strided=case % 2 == 1) for _ in "kv"
            )
            compare(torch.randn(groups * heads_a_group, width), keys, values, isa)


@pytest.mark.parametrize("groups", range(1, 9))
@pytest.mark.parametrize("heads_a_group", range(1, 9))
def test_heads(isa: str, groups: int, heads_a_group: int) -> None:
    keys, values = rows(groups, 70, 16, torch.bfloat16), rows(groups, 70, 16, torch.int8)
    bias_GT, q_HD = torch.randn(groups, 70), torch.randn(groups * heads_a_group, 16)
    compare(q_HD.bfloat16(), keys, values, isa, softcap=3.0, bias_GT=bias_GT)


@pytest.mark.parametrize("dtype", STORAGE[:3], ids=str)
def test_queries_of_any_float(isa: str, dtype: torch.dtype) -> None:
    q_HD = torch.randn(8, 40)[::2].to(dtype)
    compare(q_HD, rows(2, 100, 40, torch.float16), rows(2, 100, 40, torch.float32), isa)


def test_every_axis_but_the_last_may_be_strided(isa: str) -> None:
    store_TGD = torch.randn(50, 3, 2, 24)
    keys, values = (store_TGD[:, :, i].transpose(0, 1) for i in (0, 1))
    compare(torch.randn(6, 24), Rows(keys, None), Rows(values, None), isa)
    shared = Rows(torch.randn(1, 30, 24).expand(3, -1, -1), None)
    compare(torch.randn(6, 24), shared, shared, isa)


def test_long_contexts_are_cut_into_pieces(isa: str) -> None:
    keys, values = rows(2, 9001, 8, torch.float32), rows(2, 9001, 8, torch.bfloat16)
    compare(torch.randn(4, 8), keys, values, isa, bias_GT=torch.randn(2, 9001))


def test_threads_change_nothing(isa: str) -> None:
    keys, values = rows(3, 7000, 64, torch.bfloat16), rows(3, 7000, 64, torch.bfloat16)
    q_HD = torch.randn(12, 64)
    one, two = (attend(q_HD, keys, values, isa, threads=n) for n in (1, 2))
    assert torch.equal(one.out, two.out)
    assert torch.equal(one.lse, two.lse)


def test_no_entries(isa: str) -> None:
    empty = Rows(torch.empty(2, 0, 16), None)
    found = attend(torch.randn(4, 16), empty, empty, isa)
    assert found.lse.eq(EMPTY).all()
    assert found.out.eq(0).all()


def test_everything_masked(isa: str) -> None:
    keys = rows(2, 130, 16, torch.float32)
    found = attend(torch.randn(4, 16), keys, keys, isa, bias_GT=torch.full((2, 130), EMPTY))
    assert found.lse.eq(EMPTY).all()
    assert found.out.eq(0).all()


def test_some_entries_masked(isa: str) -> None:
    keys, values = rows(2, 300, 16, torch.float32), rows(2, 300, 16, torch.float32)
    bias_GT = torch.zeros(2, 300)
    bias_GT[:, :200] = EMPTY  # whole blocks without weight come first
    compare(torch.randn(4, 16), keys, values, isa, bias_GT=bias_GT)


@pytest.mark.parametrize("case", ["equal", "zeros", "huge", "one loud", "falling"])
def test_hard_data(isa: str, case: str) -> None:
    keys, values = rows(1, 200, 32, torch.float32), rows(1, 200, 32, torch.float32)
    k_GTD = keys.data_GTD
    if case == "equal":
        k_GTD[:] = k_GTD[:, :1]
    elif case == "zeros":
        k_GTD.zero_()
    elif case == "huge":
        k_GTD *= 1e4
    elif case == "one loud":
        k_GTD[:, 137] = 1e3
    else:  # every block lowers the maximum: nothing may be rescaled to more than it was
        k_GTD[:] = torch.linspace(50, -50, 200)[:, None]
    compare(torch.ones(2, 32), keys, values, isa)


def test_nan_is_not_hidden(isa: str) -> None:
    keys, values = rows(1, 100, 16, torch.float32), rows(1, 100, 16, torch.float32)
    keys.data_GTD[0, 70] = float("nan")
    assert attend(torch.randn(2, 16), keys, values, isa).out.isnan().all()


@pytest.mark.parametrize("softcap", [1e-3, 0.5, 50.0, 1e4])
def test_softcap(isa: str, softcap: float) -> None:
    keys, values = rows(2, 99, 64, torch.float32), rows(2, 99, 64, torch.float32)
    compare(20 * torch.randn(4, 64), keys, values, isa, softcap=softcap)


def test_what_no_kernel_serves_goes_to_the_reference() -> None:
    for width, dtype in ((12, torch.float32), (16, torch.float64)):
        k_GTD = torch.randn(2, 20, width, dtype=dtype)
        warn_slow.cache_clear()
        with pytest.warns(UserWarning, match=r"slow reference.*(multiple of 8|float64)"):
            assert attend(torch.randn(4, width), Rows(k_GTD, None), Rows(k_GTD, None), "auto")
        with pytest.raises(ValueError, match=r"multiple of 8|float64"):
            attend(torch.randn(4, width), Rows(k_GTD, None), Rows(k_GTD, None), "native")


def test_errors_name_what_is_wrong() -> None:
    q, k, i = torch.randn(4, 16), torch.randn(2, 20, 16), torch.ones(2, 20, 16, dtype=torch.int8)
    for call, message in (
        (lambda: dense_decode(q, k, k[:, 1:], scale=1.0), r"keys have shape \[2, 20, 16\] and val"),
        (lambda: dense_decode(q[:3], k, k, scale=1.0), r"q has shape \[3, 16\]"),
        (lambda: dense_decode(q, k, k, scale=1.0, softcap=0.0), "softcap is 0.0"),
        (lambda: dense_decode(q, k, k, scale=1.0, bias_GT=torch.ones(2, 19)), "bias has shape"),
        (lambda: dense_decode(q, i, k, scale=1.0), "keys is torch.int8 with no scale"),
        (lambda: dense_decode(q, k, k, scale=1.0, key_scale_GT=torch.ones(2, 20)), "with a scale"),
        (lambda: dense_decode(q, k, k, scale=1.0, threads=0), "threads is 0"),
        (lambda: dense_decode(q, k, k, scale=1.0, backend="cuda"), "backend is 'cuda'"),  # type: ignore[arg-type]
    ):
        with pytest.raises(ValueError, match=message):
            call()
