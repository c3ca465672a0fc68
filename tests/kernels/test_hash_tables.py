"""Hash tables: every path against the reference, which tests/indexes/test_lsh.py checks."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from longspan_kernels.hash_tables import codes, hash_build, hash_search

CASES: dict[str, dict[str, Any]] = {
    "small": {},
    "one bit": {"bits": 1, "tables": 3},
    "16 bits": {"bits": 16, "tables": 5, "tokens": 150},
    "many tables": {"bits": 7, "tables": 300, "groups": 1, "heads": 1},
    "R=71": {"groups": 1, "heads": 71, "width": 64},
    "D=80, bfloat16": {"width": 80, "dtype": torch.bfloat16, "groups": 3},
    "float16, few tokens": {"dtype": torch.float16, "tokens": 9},
}


def inputs(
    groups: int = 2, heads: int = 4, tokens: int = 700, width: int = 32, bits: int = 5,
    tables: int = 20, dtype: torch.dtype = torch.float32,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:  # fmt: skip
    """Keys around a mean, which is given beside them, queries and planes."""
    keys_GTD = (torch.randn(groups, tokens, width) + torch.randn(groups, 1, width)).to(dtype)
    mean_GD = keys_GTD.mean(1, dtype=torch.float32)
    planes_LDK = torch.randn(tables, width, bits)
    return keys_GTD, mean_GD, torch.randn(groups * heads, width), planes_LDK


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("case", CASES)
def test_tables_hold_every_token_by_its_code(case: str, threads: int, isa: Any) -> None:
    keys_GTD, mean_GD, _, planes_LDK = inputs(**CASES[case])
    found = hash_build(keys_GTD, mean_GD, planes_LDK, backend=isa, threads=threads)
    tokens = keys_GTD.shape[1]
    for group, keys_TD in enumerate(keys_GTD.double() - mean_GD.double()[:, None]):
        product_LTK = keys_TD @ planes_LDK.double()
        code_LT = codes(keys_TD.float(), planes_LDK).long()
        clear_LT = (product_LTK.abs() > 1e-4).all(-1)  # the others are rounding's to decide
        assert clear_LT.float().mean() > 0.95
        for table, bound_C in enumerate(found.bound_GLC[group]):
            token_T = found.token_GLT[group, table].long()
            assert torch.equal(token_T.sort().values, torch.arange(tokens))
            size_C = bound_C.long().diff()
            assert bound_C[0] == 0
            assert (size_C >= 0).all()
            stored_T = torch.empty(tokens, dtype=torch.long)
            stored_T[token_T] = torch.arange(len(size_C)).repeat_interleave(size_C)
            assert ((stored_T == code_LT[table]) | ~clear_LT[table]).all()
            behind = stored_T[token_T[:-1]] == stored_T[token_T[1:]]
            assert (token_T[1:] > token_T[:-1])[behind].all()


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("case", CASES)
def test_collisions(case: str, threads: int, isa: Any) -> None:
    keys_GTD, mean_GD, q_HD, planes_LDK = inputs(**CASES[case])
    tables = hash_build(keys_GTD, mean_GD, planes_LDK, backend="reference")
    code_HL = codes(q_HD, planes_LDK).T
    found, read = hash_search(code_HL, tables, backend=isa, threads=threads)
    right, entries = hash_search(code_HL, tables, backend="reference")
    assert read == entries
    assert torch.equal(found.start_NK, right.start_NK)
    assert torch.equal(found.count_N, right.count_N)
    assert found.size_NK is None
    if case == "small":
        assert 0 < found.count_N.float().mean() < keys_GTD.shape[1]


@pytest.mark.parametrize("backend", ["auto", "reference"])
@pytest.mark.parametrize("case", CASES)
def test_rows_with_room_for_all_tokens(case: str, backend: Any) -> None:
    keys_GTD, mean_GD, q_HD, planes_LDK = inputs(**CASES[case])
    tables = hash_build(keys_GTD, mean_GD, planes_LDK, backend="reference")
    code_HL = codes(q_HD, planes_LDK).T
    found, read = hash_search(code_HL, tables, first=9, whole=True, backend=backend)
    right, entries = hash_search(code_HL, tables, first=9, backend="reference")
    assert isinstance(read, torch.Tensor)
    assert read == entries
    assert found.start_NK.shape == (len(q_HD), keys_GTD.shape[1])
    assert found.start_NK.dtype == found.count_N.dtype == torch.int32
    assert torch.equal(found.count_N, right.count_N)
    for mine, theirs, count in zip(found.start_NK, right.start_NK, right.count_N, strict=True):
        assert torch.equal(mine[:count], theirs[:count])


def test_such_rows_ask_for_no_number() -> None:
    """There is none in these tensors, which have shapes alone."""
    keys_GTD, mean_GD, q_HD, planes_LDK = inputs()
    tables = hash_build(keys_GTD, mean_GD, planes_LDK)
    there = tables._make(each.to("meta") for each in tables)
    code_HL = codes(q_HD.to("meta"), planes_LDK.to("meta")).T
    found, read = hash_search(code_HL, there, whole=True, backend="reference")
    assert found.start_NK.shape == (8, 700)
    assert isinstance(read, torch.Tensor)
    with pytest.raises((RuntimeError, NotImplementedError)):
        hash_search(code_HL, there, backend="reference")


def test_what_does_not_fit_is_refused() -> None:
    keys_GTD, mean_GD, q_HD, planes_LDK = inputs()
    with pytest.raises(ValueError, match=r"planes \[20, 24, 5\]"):
        hash_build(keys_GTD, mean_GD, planes_LDK[:, :24])
    with pytest.raises(ValueError, match="a table has 17 planes; it should have 1 to 16"):
        hash_build(keys_GTD, mean_GD, torch.randn(2, 32, 17))
    tables = hash_build(keys_GTD, mean_GD, planes_LDK)
    code_HL = codes(q_HD, planes_LDK).T
    with pytest.raises(ValueError, match=r"codes have shape \[8, 19\]"):
        hash_search(code_HL[:, :19], tables)
    with pytest.raises(ValueError, match="a code is out of range"):
        hash_search(code_HL + 32, tables, backend="native")
    with pytest.raises(ValueError, match="a native row is as long as what was found"):
        hash_search(code_HL, tables, whole=True, backend="native")
