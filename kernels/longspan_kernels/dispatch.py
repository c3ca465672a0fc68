"""Which path serves a call: the compiled kernels where they can, the reference everywhere else."""

from __future__ import annotations

import warnings
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch

try:
    from longspan_kernels import _cpu as native
except ImportError:  # a source tree that was never built: the references serve every call
    native = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor

__all__ = [
    "Backend",
    "Unsupported",
    "build_info",
    "check_backend",
    "native",
    "not_plain",
    "path",
    "thread_count",
    "warn_slow",
]

Backend = Literal[
    "auto",
    "reference",
    "triton",
    "native",
    "portable",
    "avx2",
    "avx512",
    "avx512_bf16",
    "amx",
    "neon",
    "neon_bf16",
]
"""auto: Triton for CUDA tensors and native for others, where possible; triton, native: or
ValueError; an instruction set: exactly that one."""


class Unsupported(str):
    """An obstacle in what the kernels can do, not in where a tensor is or how it lies in memory."""

    __slots__ = ()


def build_info() -> dict[str, Any]:
    """What the compiled kernels are and which instruction set they use here."""
    if native is None:
        return {"native": False, "isa": "reference", "isas": [], "compiler": None}
    isas = native.isas()
    return {"native": True, "isa": isas[-1], "isas": isas, "compiler": native.compiler()}


def check_backend(backend: Backend) -> None:
    """ValueError for a path that is not known."""
    if backend not in get_args(Backend):
        raise ValueError(f"backend is {backend!r}; right is one of {', '.join(get_args(Backend))}")


def path(backend: Backend, obstacle: str | None) -> str | None:
    """The `isa` to pass to the extension, or None for the reference.

    `obstacle` says why this call cannot be served natively, if so; what is `Unsupported` is
    warned of, the first time. Raises ValueError where the caller insists on a path that cannot
    serve it.
    """
    check_backend(backend)
    if backend == "reference":
        return None
    if backend == "triton":
        raise ValueError("backend is 'triton', but this operation has no Triton kernel")
    if native is None:
        obstacle = Unsupported("the native extension is not built: run `make setup`")
    if backend == "auto":
        if isinstance(obstacle, Unsupported):
            warn_slow(obstacle)
        return None if obstacle else "native"
    if obstacle:
        raise ValueError(f"backend is {backend!r}, but {obstacle}")
    return backend


@cache
def warn_slow(obstacle: str) -> None:
    """Say, once a reason, that the reference stands in for the kernels."""
    warnings.warn(f"the slow reference serves a call: {obstacle}", stacklevel=2)


def not_plain(tensors: Iterable[Tensor | None]) -> str | None:
    """Why one of these tensors cannot be handed to the extension as it is; None if all can."""
    for tensor in tensors:
        if tensor is None:
            continue
        if tensor.device.type != "cpu":
            return f"a tensor is on {tensor.device}"
        if tensor.requires_grad and torch.is_grad_enabled():
            return "a tensor requires a gradient"
    return None


def thread_count(threads: int | None) -> int:
    """The number of threads to use: as given, else torch's own setting."""
    if threads is None:
        return torch.get_num_threads()
    if threads < 1:
        raise ValueError(f"threads is {threads}; it must be at least 1")
    return threads
