"""Where the Triton kernels are tested, and beside what."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

from longspan_kernels.types import Runs

if TYPE_CHECKING:
    from collections.abc import Callable

CUDA = torch.cuda.is_available()
DEVICE = torch.device("cuda" if CUDA else "cpu")
on_gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(not CUDA, reason="no CUDA device: the interpreter computes bf16 wrongly"),
]
DTYPES = [
    torch.float32,
    torch.float16,
    torch.int8,
    pytest.param(torch.bfloat16, marks=on_gpu),
]
TOLERANCE = {torch.float32: 2e-5, torch.float16: 2e-3, torch.int8: 2e-3, torch.bfloat16: 2e-2}


def moved(value: Any) -> Any:
    """Tensors, also those within the inputs' own types, on the device under test."""
    if isinstance(value, torch.Tensor):
        return value.to(DEVICE)
    if isinstance(value, Runs):
        return Runs(moved(value.start_NK), moved(value.size_NK), moved(value.count_N))
    if isinstance(value, list):
        return [moved(each) for each in value]
    return value._make(map(moved, value)) if hasattr(value, "_make") else value


def both(operation: Callable[..., Any], *inputs: Any, **options: Any) -> tuple[Any, Any]:
    """What Triton and the reference say, on the CPU."""
    there = [moved(value) for value in inputs]
    found = operation(*there, backend="triton", **{k: moved(v) for k, v in options.items()})
    return type(found)(*(x if x is None else x.cpu() for x in found)), operation(
        *inputs, backend="reference", **options
    )
