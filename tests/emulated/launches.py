"""Launches of Triton kernels on emulated tensors: in Triton's interpreter, on the inner ones.

Not emulated: bfloat16, which the interpreter computes wrongly; addresses that are not aligned;
programs that run at the same time. That kernels compile is tests/kernels/compile_triton.py's.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from tests.emulated.pinned import is_pinned
from tests.emulated.rules import Illegal, capturing, gpu
from tests.emulated.tensors import CudaTensor, kept, mapped, tensors
from tests.interpreter import quicken


def install() -> None:
    """Where kernels were decorated for the interpreter, which TRITON_INTERPRET decides."""
    from triton.runtime import interpreter
    from triton.runtime.interpreter import InterpretedFunction, InterpreterOptions

    interpreter.interpreter_builder.options = InterpreterOptions(sanitize_overflow=False)
    quicken()
    interpreted = InterpretedFunction.run

    def run(self: Any, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> Any:
        given = tensors((args, kwargs))
        if not any(isinstance(each, CudaTensor) for each in given):
            return interpreted(self, *args, grid=grid, warmup=warmup, **kwargs)
        return launch(partial(interpreted, self, grid=grid, warmup=warmup), self, args, kwargs)

    InterpretedFunction.run = run


def launch(kernel: Any, named: Any, args: Any, kwargs: Any) -> None:
    """One launch with tensors of the device, and of pinned host memory."""
    given = tensors((args, kwargs))
    for number, each in enumerate(args):
        if not isinstance(each, torch.Tensor):
            continue
        name = f"argument {number} of the kernel {named.__name__}"
        if each.device.type == "cpu" and not is_pinned(each):
            raise Illegal(f"{name} lies in pageable host memory; it should be on {gpu()} or pinned")
        if each.device.type == "cuda" and each.device != gpu():
            raise Illegal(f"{name} lies on {each.device}; the current device is {gpu()}")
    capture = capturing()

    def inside(x: Any) -> Any:
        if isinstance(x, CudaTensor):
            return x.numbers
        return kept(x) if capture is not None and isinstance(x, torch.Tensor) else x

    run = partial(kernel, *mapped(inside, args), **mapped(inside, kwargs))
    if capture is None:
        run()
    else:
        capture.uses(f"the kernel {named.__name__}", given, [])
        capture.steps.append(run)
