"""Every path of the scores of cells against sums of single products."""

from __future__ import annotations

from functools import partial
from importlib.util import find_spec
from typing import Any

import pytest
import torch
from torch import Tensor
from triton_cases import DTYPES, TOLERANCE, moved

from longspan_kernels.cell_scores import cell_scores, cpu, reference
from longspan_kernels.dispatch import build_info

PATHS: dict[str, Any] = {
    "op": cell_scores,
    **{isa: partial(cpu.cell_scores, isa=isa) for isa in build_info()["isas"]},
}
# heads, groups, positions, entries, head size, stride, block, ahead, softcap
CASES: list[tuple[Any, ...]] = [
    (4, 2, 70, 300, 64, 8, 128, 230, None),  # blocks that end within a cell
    (2, 1, 130, 130, 32, 4, 64, 0, 2.0),
    (3, 3, 50, 900, 40, 16, 64, 950, None),  # all of a part lies before
    (2, 2, 1, 5, 8, 8, 64, 4, None),
    (4, 1, 150, 377, 128, 32, 64, 227, None),
    (2, 1, 64, 600, 64, 8, 256, 100, None),  # much lies ahead
    (2, 1, 9, 40, 96, 3, 3, 31, None),  # a cell a block
]


def inputs(case: tuple[Any, ...], dtype: torch.dtype) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """Keys with the heads of a token side by side, as they come from a projection."""
    heads, groups, positions, entries, size, stride, block, ahead, softcap = case
    rng = torch.Generator().manual_seed(size)
    q_HQD = torch.randn(heads, positions, size, generator=rng).to(dtype)
    k_GTD = torch.randn(entries, groups, size, generator=rng).to(dtype).transpose(0, 1)
    how = {"scale": 3 * size**-0.5 / stride, "softcap": softcap}
    return q_HQD, k_GTD, {"stride": stride, "block": block, "ahead": ahead, **how}


def near(found: Tensor, right: Tensor, tolerance: float) -> None:
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, right, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("case", [CASES[1], CASES[2], CASES[6]], ids=str)
def test_the_reference_sums_antidiagonals(case: tuple[Any, ...]) -> None:
    q_HQD, k_GTD, how = inputs(case, torch.float32)
    found = reference.cell_scores(q_HQD, k_GTD, **how)
    stride, cells = how["stride"], how["block"] // how["stride"]
    (heads, positions, _), (groups, entries, _) = q_HQD.shape, k_GTD.shape
    for h in range(heads):
        z_QT = q_HQD[h].double() @ k_GTD[h * groups // heads].double().T
        for c in (0, -(-positions // stride) // 2, -(-positions // stride) - 1):
            for y in range(found.shape[2]):
                z = []
                for e in range(y * cells, (y + 1) * cells):
                    if e * stride >= entries or e * stride > c * stride + how["ahead"]:
                        continue
                    met = [(c * stride + stride - 1 - i, e * stride + i) for i in range(stride)]
                    z.append(sum(z_QT[p, t] for p, t in met if p < positions and t < entries))
                right = torch.tensor(z).double() * how["scale"]
                if how["softcap"]:
                    right = how["softcap"] * (right / how["softcap"]).tanh()
                near(found[h, c, y], right.logsumexp(0).float(), 1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_path_is_the_reference(case: tuple[Any, ...], dtype: torch.dtype) -> None:
    q_HQD, k_GTD, how = inputs(case, dtype)
    right = reference.cell_scores(q_HQD, k_GTD, **how)
    for path in PATHS.values():
        alone, shared = (path(q_HQD, k_GTD, **how, threads=n) for n in (1, 2))
        near(alone, right, 2e-5)
        assert torch.equal(alone, shared)


@pytest.mark.skipif(not find_spec("triton"), reason="Triton is not installed")
@pytest.mark.parametrize("dtype", [d for d in DTYPES if d is not torch.int8], ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_triton_is_the_reference(case: tuple[Any, ...], dtype: torch.dtype) -> None:
    q_HQD, k_GTD, how = inputs(case, dtype)
    if q_HQD.shape[2] % 8 or k_GTD.shape[2] % 8:
        pytest.skip("no Triton kernel reads this head size")
    found = cell_scores(*moved([q_HQD, k_GTD]), **how, backend="triton").cpu()
    right = reference.cell_scores(q_HQD, k_GTD, **how)
    assert torch.equal(found.isinf(), right.isinf())
    near(found, right, TOLERANCE[dtype])


@pytest.mark.parametrize("name", PATHS)
def test_a_query_that_is_no_number_scores_none(name: str) -> None:
    q_HQD, k_GTD, how = inputs(CASES[0], torch.bfloat16)
    q_HQD[1, 5] = torch.nan
    found = PATHS[name](q_HQD, k_GTD, **how)
    assert found[1, 0].isnan().any()
    assert not found[1, 1:].isnan().any()
    assert not found[0].isnan().any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stride": 5}, "stride is 5 and block is 64"),
        ({"stride": 1}, "stride is 1 and block is 64; a block should be 1, 2, 4 ... 32 strides"),
        ({"block": 24}, "stride is 8 and block is 24"),
        ({"ahead": -1}, "ahead is -1; it should be at least 0"),
        ({"softcap": 0.0}, "softcap is 0"),
    ],
)
def test_errors_name_what_is_wrong(change: dict[str, Any], message: str) -> None:
    given = {"stride": 8, "block": 64, "scale": 1.0, **change}
    with pytest.raises(ValueError, match=message):
        cell_scores(torch.zeros(2, 9, 16), torch.zeros(1, 9, 16), **given)
    with pytest.raises(ValueError, match=r"q has shape \[2, 9, 8\]"):
        cell_scores(torch.zeros(2, 9, 8), torch.zeros(1, 9, 16), stride=8, block=64, scale=1.0)
