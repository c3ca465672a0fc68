"""Native attention over runs against the reference."""

from __future__ import annotations

import pytest
import torch
from kernel_cases import HEAD_SIZES, LENGTHS, STORAGE, Rows, assert_same, rows, runs

from longspan_kernels.dense_decode import dense_decode
from longspan_kernels.merge import merge
from longspan_kernels.sparse_decode import sparse_decode
from longspan_kernels.types import Partial, Runs


def attend(
    q_HD: torch.Tensor, keys: Rows, values: Rows, which: Runs, backend: str, **options: object
) -> Partial:
    settings = {"scale": q_HD.shape[-1] ** -0.5, "threads": 1, **options}
    return sparse_decode(
        q_HD,
        keys.data_GTD,
        values.data_GTD,
        which,
        key_scale_GT=keys.scale_GT,
        value_scale_GT=values.scale_GT,
        backend=backend,  # type: ignore[arg-type]
        **settings,  # type: ignore[arg-type]
    )


def compare(
    q_HD: torch.Tensor, keys: Rows, values: Rows, which: Runs, isa: str, **options: object
) -> None:
    assert_same(
        attend(q_HD, keys, values, which, isa, **options),
        attend(q_HD, keys, values, which, "reference", **options),
    )


@pytest.mark.parametrize("dtype", STORAGE, ids=str)
@pytest.mark.parametrize("width", HEAD_SIZES)
@pytest.mark.parametrize("sized", [False, True])
def test_sizes(isa: str, dtype: torch.dtype, width: int, sized: bool) -> None:
    for case, entries in enumerate(LENGTHS):
        groups, heads = 1 + case % 3, (1 + case % 3) * (1 + (case + width // 8) % 8)
        keys, values = (rows(groups, entries, width, dtype, strided=case % 2 == 0) for _ in "kv")
        for selectors in (groups, heads):
            which = runs(selectors, entries, 1 + entries // 6, sized)
            compare(torch.randn(heads, width), keys, values, which, isa)


@pytest.mark.parametrize("first", [-300, -3, 0, 5, 99, 2000])
@pytest.mark.parametrize("sized", [False, True])
def test_window(isa: str, first: int, sized: bool) -> None:
    keys, values = rows(2, 100, 32, torch.bfloat16), rows(2, 100, 32, torch.float32)
    which = runs(2, 100, 30, sized)
    compare(torch.randn(4, 32), keys, values, which, isa, first=first, bias_GT=torch.randn(2, 100))


@pytest.mark.parametrize("rows_of", ["G", "H"])
def test_many_runs_are_cut_into_pieces(isa: str, rows_of: str) -> None:
    keys, values = rows(2, 30000, 8, torch.float16), rows(2, 30000, 8, torch.float16)
    selectors = 2 if rows_of == "G" else 6
    for sized in (False, True):
        which = runs(selectors, 30000, 9000, sized)
        compare(torch.randn(6, 8), keys, values, which, isa, softcap=20.0)


def test_all_runs_are_everything(isa: str) -> None:
    keys, values = rows(3, 77, 64, torch.bfloat16), rows(3, 77, 64, torch.bfloat16)
    start_NK = torch.arange(0, 77, 7, dtype=torch.int32).expand(3, -1)
    whole = Runs(start_NK, torch.full_like(start_NK, 7), torch.full((3,), 11, dtype=torch.int32))
    q_HD = torch.randn(6, 64)
    expected = dense_decode(q_HD, keys.data_GTD, values.data_GTD, scale=0.125, backend="reference")
    assert_same(attend(q_HD, keys, values, whole, isa), expected)


def test_parts_of_a_store_merge_to_the_whole(isa: str) -> None:
    keys, values = rows(2, 500, 32, torch.float32), rows(2, 500, 32, torch.float32)
    which, q_HD = runs(2, 500, 60, sized=True), torch.randn(4, 32)
    parts = [
        attend(q_HD, Rows(k, None), Rows(v, None), which, isa, first=a)
        for a, b in ((0, 123), (123, 321), (321, 500))
        for k, v in ((keys.data_GTD[:, a:b], values.data_GTD[:, a:b]),)
    ]
    assert_same(merge(parts), attend(q_HD, keys, values, which, "reference"))


def test_nothing_selected(isa: str) -> None:
    keys = rows(2, 10, 16, torch.float32)
    for width in (0, 4):
        none = Runs(torch.zeros(2, width, dtype=torch.int32), None, torch.zeros(2).int())
        found = attend(torch.randn(4, 16), keys, keys, none, isa)
        assert found.lse.eq(float("-inf")).all()
        assert found.out.eq(0).all()


def test_threads_change_nothing(isa: str) -> None:
    keys, values = rows(3, 20000, 32, torch.bfloat16), rows(3, 20000, 32, torch.bfloat16)
    which, q_HD = runs(3, 20000, 2500, sized=True), torch.randn(12, 32)
    one, two = (attend(q_HD, keys, values, which, isa, threads=n) for n in (1, 2))
    assert torch.equal(one.out, two.out)
    assert torch.equal(one.lse, two.lse)


def test_unselected_rows_are_not_read(isa: str) -> None:
    keys, values = rows(1, 40, 16, torch.float32), rows(1, 40, 16, torch.float32)
    for data in (keys.data_GTD, values.data_GTD):
        data[:, 20:] = float("nan")
    which = Runs(
        torch.tensor([[3, 9]]).int(), torch.tensor([[2, 11]]).int(), torch.tensor([2]).int()
    )
    assert attend(torch.randn(2, 16), keys, values, which, isa).out.isfinite().all()


def test_errors_name_what_is_wrong() -> None:
    keys, q_HD = rows(2, 20, 16, torch.float32), torch.randn(4, 16)
    start, count = torch.zeros(2, 3).int(), torch.zeros(2).int()
    for which, message in (
        (Runs(start[:1], None, count[:1]), r"runs have shape \[1, 3\]"),
        (Runs(start, start[:, :2], count), r"size_NK of the runs has shape \[2, 2\]"),
        (Runs(start, None, count[:1]), r"count_N of the runs has shape \[1\]"),
        (Runs(start.long(), None, count), "runs hold torch.int64"),
    ):
        with pytest.raises(ValueError, match=message):
            attend(q_HD, keys, keys, which, "auto")
