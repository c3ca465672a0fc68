"""When a Triton kernel serves a call; importable where Triton is not installed."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING

import torch

from longspan_kernels.dispatch import Unsupported, check_backend, warn_slow

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from longspan_kernels.dispatch import Backend

STORAGE = (torch.bfloat16, torch.float16, torch.float32, torch.int8)
WIDEST = 256
"""Largest head size: wider tiles do not fit the registers."""
EXACT_WIDE = 128
"""Head size beyond which tiles of float32 want SHARED_BYTES of a block's shared memory."""
SHARED_BYTES = 168_064
"""More than anything before Hopper has."""


def triton_serves(
    backend: Backend, rows: Sequence[Tensor], numbers: Sequence[Tensor | None] = ()
) -> bool:
    """Whether the Triton kernels take this call: for CUDA tensors where they can, and where the
    caller asks for them, which raises ValueError where they cannot.

    `rows` are arrays [.., D] of head vectors, `numbers` whatever else the kernel reads.
    """
    check_backend(backend)
    present = [tensor for tensor in (*rows, *numbers) if tensor is not None]
    if backend != "triton" and not (backend == "auto" and present[0].is_cuda):
        return False
    obstacle = (
        _rows_obstacle(rows)
        or _numbers_obstacle(present[len(rows) :])
        or _memory_obstacle(present)
        or _tile_obstacle(rows)
    )
    if obstacle and backend == "triton":
        raise ValueError(f"backend is 'triton', but {obstacle}")
    if isinstance(obstacle, Unsupported):
        warn_slow(obstacle)
    return obstacle is None


def _rows_obstacle(rows: Sequence[Tensor]) -> str | None:
    for tensor in rows:
        width = tensor.shape[-1]
        if tensor.dtype not in STORAGE:
            return Unsupported(f"no Triton kernel reads {tensor.dtype}")
        if width % 8 or width > WIDEST:
            return Unsupported(f"head size is {width}; right is a multiple of 8, at most {WIDEST}")
        if tensor.numel() and tensor.stride(-1) != 1:
            return f"the elements of a row are {tensor.stride(-1)} apart; they should be adjacent"
        if tensor.shape[-2] >= 2**31:
            return f"a tensor has {tensor.shape[-2]} rows; right are fewer than 2^31"
    return None


def _numbers_obstacle(numbers: Sequence[Tensor]) -> str | None:
    for tensor in numbers:
        if tensor.is_floating_point() and tensor.dtype != torch.float32:
            return f"numbers are {tensor.dtype}; they should be torch.float32"
        if tensor.numel() and tensor.dim() and tensor.stride(-1) != 1:
            return f"numbers are {tensor.stride(-1)} apart; they should be adjacent"
    return None


def _tile_obstacle(rows: Sequence[Tensor]) -> str | None:
    for tensor in rows:
        if not tensor.is_cuda or tensor.dtype != torch.float32 or tensor.shape[-1] <= EXACT_WIDE:
            continue
        if (held := shared_bytes(tensor.device.index)) < SHARED_BYTES:
            return Unsupported(
                f"head size is {tensor.shape[-1]} in torch.float32, whose tiles take {SHARED_BYTES}"
                f" bytes of shared memory; the GPU has {held}; right would be bfloat16 or float16"
            )
    return None


@cache
def shared_bytes(index: int) -> int:
    """The most shared memory that a block may have on a CUDA device."""
    from triton.runtime import driver

    return int(driver.active.utils.get_device_properties(index)["max_shared_mem"])


def _memory_obstacle(present: Sequence[Tensor]) -> str | None:
    if find_spec("triton") is None:
        return "Triton is not installed"
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in present):
        return "a tensor requires a gradient"
    devices = {tensor.device for tensor in present}
    if len(devices) > 1:
        return f"the tensors are on {' and '.join(sorted(map(str, devices)))}"
    if devices.pop().type == "cuda":
        return None
    import triton

    if not triton.knobs.runtime.interpret:
        return "the tensors are not on a CUDA device"
    if any(tensor.dtype == torch.bfloat16 for tensor in present):
        return "Triton's interpreter computes bfloat16 wrongly; use float32 or float16 there"
    return None
