"""Hash tables in Triton against the reference, as in test_triton.py."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
import torch
from triton_cases import DTYPES, moved

from longspan_kernels.hash_tables import codes, hash_build, hash_search
from longspan_kernels.types import HashTables, Runs

pytestmark = pytest.mark.skipif(not find_spec("triton"), reason="Triton is not installed")
FLOATS = [dtype for dtype in DTYPES if dtype is not torch.int8]


def inputs(
    groups: int, tokens: int, width: int, bits: int, tables: int, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Keys around a mean, as part of a longer store, the mean, and planes."""
    store_GTD = (torch.randn(groups, tokens + 7, width) + 1).to(dtype)
    keys_GTD = store_GTD[:, 3 : tokens + 3]
    return keys_GTD, keys_GTD.mean(1, dtype=torch.float32), torch.randn(tables, width, bits)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize(
    ("groups", "tokens", "width", "bits", "tables"),
    [(1, 5, 64, 4, 2), (2, 333, 96, 10, 20), (1, 200, 256, 16, 3), (3, 70, 128, 1, 5)],
)
def test_codes_and_tables(
    dtype: torch.dtype, groups: int, tokens: int, width: int, bits: int, tables: int
) -> None:
    keys_GTD, mean_GD, planes_LDK = inputs(groups, tokens, width, bits, tables, dtype)
    found = hash_build(*moved([keys_GTD, mean_GD, planes_LDK]), backend="triton")
    assert found.token_GLT.dtype == found.bound_GLC.dtype == torch.int32
    for group, keys_TD in enumerate(keys_GTD.double() - mean_GD.double()[:, None]):
        product_LTK = keys_TD @ planes_LDK.double()
        right_LT = ((product_LTK > 0) * 2 ** torch.arange(bits)).sum(-1)
        clear_LT = (product_LTK.abs() > 1e-4).all(-1)  # the others are rounding's to decide
        assert clear_LT.float().mean() > 0.9
        there = keys_TD.float()
        code_LT = codes(*moved([there, planes_LDK]), backend="triton").cpu()
        assert ((code_LT == right_LT) | ~clear_LT).all()
        for table, bound_C in enumerate(found.bound_GLC[group].cpu().long()):
            token_T = found.token_GLT[group, table].cpu().long()
            assert torch.equal(token_T.sort().values, torch.arange(tokens))
            stored_T = torch.empty(tokens, dtype=torch.long)
            stored_T[token_T] = torch.arange(2**bits).repeat_interleave(bound_C.diff())
            assert ((stored_T == right_LT[table]) | ~clear_LT[table]).all()
            behind = stored_T[token_T[:-1]] == stored_T[token_T[1:]]
            assert (token_T[1:] > token_T[:-1])[behind].all()


def searched(code_HL: torch.Tensor, tables: HashTables, first: int) -> tuple[Runs, int]:
    """What the kernels find, as the reference gives it."""
    found, read = hash_search(moved(code_HL), moved(tables), first=first, backend="triton")
    assert isinstance(read, torch.Tensor)
    count_H = found.count_N.cpu()
    most = max(1, int(count_H.max()))
    live_HK = torch.arange(most) < count_H[:, None]
    start_HK = torch.where(live_HK, found.start_NK.cpu()[:, :most], 0)
    return Runs(start_HK, found.size_NK, count_H), int(read)


@pytest.mark.parametrize(
    ("groups", "a_group", "tokens", "bits", "tables"),
    [
        (1, 1, 1, 1, 2), (2, 4, 700, 5, 20), (1, 7, 333, 2, 30), (2, 2, 1500, 10, 40),
        (1, 3, 64, 16, 9), (3, 1, 96, 1, 7),
    ],
)  # fmt: skip
@pytest.mark.parametrize("small", [False, True])
def test_collisions(
    groups: int, a_group: int, tokens: int, bits: int, tables: int, small: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    from longspan_kernels.hash_tables import triton

    if small:  # several programs a head, which count what came before theirs in several steps
        for name, value in (("WORDS", 8), ("STEP", 2), ("READ", 4)):
            monkeypatch.setattr(triton, name, value)
    keys_GTD, mean_GD, planes_LDK = inputs(groups, tokens, 32, bits, tables, torch.float32)
    built = hash_build(keys_GTD, mean_GD, planes_LDK, backend="reference")
    near_HD = (keys_GTD - mean_GD[:, None])[:, :1].expand(-1, a_group, -1).flatten(0, 1)
    code_HL = codes(near_HD + 0.3 * torch.randn(groups * a_group, 32), planes_LDK).T.contiguous()
    found, read = searched(code_HL, built, first=11)
    right, entries = hash_search(code_HL, built, first=11, backend="reference")
    assert read == entries
    assert torch.equal(found.count_N, right.count_N)
    live_HK = torch.arange(right.start_NK.shape[1]) < right.count_N[:, None]
    assert torch.equal(found.start_NK, torch.where(live_HK, right.start_NK, 0))


def test_a_code_out_of_range_finds_nothing() -> None:
    """The host cannot know of it without waiting; what lies there is not read."""
    keys_GTD, mean_GD, planes_LDK = inputs(1, 50, 32, 2, 6, torch.float32)
    built = hash_build(keys_GTD, mean_GD, planes_LDK, backend="reference")
    for wild in (-1, 4, 2**31 - 1):
        found, read = searched(torch.full((2, 6), wild, dtype=torch.int32), built, first=0)
        assert read == 0
        assert found.count_N.tolist() == [0, 0]


def test_what_the_kernels_cannot_read_is_refused() -> None:
    keys_GTD, mean_GD, planes_LDK = inputs(1, 50, 32, 2, 6, torch.float32)
    with pytest.raises(ValueError, match=r"no Triton kernel reads torch.float64"):
        hash_build(keys_GTD.double(), mean_GD, planes_LDK, backend="triton")
    with pytest.raises(ValueError, match=r"numbers are torch.float64"):
        codes(keys_GTD[0], planes_LDK.double(), backend="triton")
    built = hash_build(keys_GTD, mean_GD, planes_LDK)
    with pytest.raises(ValueError, match="numbers are 2 apart"):
        hash_search(torch.zeros(6, 2, dtype=torch.int32).T, built, backend="triton")
