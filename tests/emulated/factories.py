"""Tensors that torch makes on the device: kernels of its CUDA key, which serve every thread."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from tests.emulated.rules import gpu
from tests.emulated.tensors import aten, dispatch, run

if TYPE_CHECKING:
    from torch import Tensor

FACTORIES = (
    "empty.memory_format", "empty_strided", "arange", "arange.start", "arange.start_step", "eye",
    "eye.m",
)  # fmt: skip


def register() -> Any:
    """Serve the CUDA key, for as long as what this returns is held."""
    library = torch.library.Library("aten", "IMPL")  # type: ignore[no-untyped-call]
    for name in FACTORIES:
        packet, _, overload = name.partition(".")
        func = getattr(getattr(aten, packet), overload or "default")

        def make(*args: Any, func: Any = func, **kwargs: Any) -> Tensor:
            kwargs.pop("pin_memory", None)
            return run(func, args, {**kwargs, "device": gpu(kwargs.get("device"))})  # type: ignore[no-any-return]

        library.impl(name, make, "CUDA")  # type: ignore[no-untyped-call]
    library.impl("copy_", lambda *given: dispatch(aten.copy_.default, given, {}), "CUDA")  # type: ignore[no-untyped-call]
    return library
