"""The scan of key codes in Triton against the reference, as in test_triton.py."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
import torch
from test_key_scan import CASES, exact_products, inputs
from triton_cases import moved

from longspan_kernels.key_scan import best_keys, encode

pytestmark = pytest.mark.skipif(not find_spec("triton"), reason="Triton is not installed")


@pytest.mark.parametrize("case", CASES)
def test_the_same_keys_in_the_same_order(case: str) -> None:
    """Scores are whole numbers, so they agree to the last bit, and equal ones come in order."""
    q_HD, keys, coded, where = inputs(**CASES[case])
    there = moved(q_HD), moved(coded), moved(where)
    tokens = sum(each.shape[1] for each in keys)
    for k in {1, min(tokens, 7), tokens}:
        found = best_keys(*there, k, backend="triton").cpu()
        assert found.dtype == torch.int32
        assert torch.equal(found, best_keys(q_HD, coded, where, k, backend="reference"))
    k, more = (tokens + 1) // 2, tokens
    found = best_keys(*there, k, keys_GTDs=moved(keys), candidates=more, backend="triton").cpu()
    right = exact_products(q_HD, keys).topk(k).values
    exact = exact_products(q_HD, keys).gather(1, found.long())
    torch.testing.assert_close(exact, right, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("size", [1e-30, 1e12])
def test_tiny_and_huge_numbers(size: float) -> None:
    q_HD, keys, coded, where = inputs()
    coded = [encode(size * each, where) for each in keys]
    for factor in (size, 1.0, -1.0, 0.0):
        found = best_keys(*moved([factor * q_HD]), moved(coded), moved(where), 20, backend="triton")
        right = best_keys(factor * q_HD, coded, where, 20, backend="reference")
        assert torch.equal(found.cpu(), right)


def test_codes_that_lie_apart() -> None:
    q_HD, _, (coded, _), where = inputs(lengths=(300, 1))
    wide = torch.zeros(2, 310, 32, dtype=torch.int8)
    wide[:, 5:305] = coded.code_GTW
    apart = coded._replace(code_GTW=moved(wide)[:, 5:305], step_GW=moved(coded.step_GW))
    found = best_keys(moved(q_HD), [apart], moved(where), 20, backend="triton").cpu()
    assert torch.equal(found, best_keys(q_HD, [coded], where, 20, backend="reference"))
