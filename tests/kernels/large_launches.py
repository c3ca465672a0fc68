"""Launches of the size of a server's, of which Triton's interpreter runs the last program alone.

Arrays are address space that nobody has written: pages of zeros until something is. Whole numbers
that leave their 32 bits are errors, and so are grids that no GPU takes.
"""

from __future__ import annotations

import mmap
from contextlib import contextmanager
from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING, Any

import torch
from triton.runtime import interpreter

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest

FLAGS = (
    mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000
)  # MAP_NORESERVE of Linux, from Python 3.13 on
MOST = 2**31 - 1, 65_535, 65_535
"""Programs that CUDA launches, by dimension."""


def unwritten(*shape: Any, dtype: torch.dtype = torch.float32, **_: Any) -> torch.Tensor:
    """Zeros that take no memory. OSError where there is no address space for them."""
    sizes = shape[0] if shape and not isinstance(shape[0], int) else shape
    count = prod(sizes)
    if not count:
        return torch.zeros(sizes, dtype=dtype)
    memory = mmap.mmap(-1, count * dtype.itemsize, flags=FLAGS)
    return torch.frombuffer(memory, dtype=dtype).view(sizes)


def why_not() -> str | None:
    """Why there is no address space for arrays of terabytes; None if there is."""
    try:
        unwritten(1 << 41, dtype=torch.int8)
    except OSError as error:
        return f"a process here cannot have terabytes of address space: {error}"
    return None


@contextmanager
def last_programs(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[int, ...]]]:
    """Grids of what is launched within, whose last programs run."""
    grids: list[tuple[int, ...]] = []
    builder: Any = interpreter.interpreter_builder
    launch, dims, index = (
        interpreter.GridExecutor.__call__,
        builder.set_grid_dim,
        builder.set_grid_idx,
    )

    def run(self: Any, *args: Any, **options: Any) -> None:
        grid = (*self.grid, 1, 1)[:3]
        assert all(0 < here <= most for here, most in zip(grid, MOST, strict=True)), grid
        grids.append(grid)
        self.grid = (1, 1, 1)
        builder.set_grid_dim = lambda *_: dims(*grid)
        builder.set_grid_idx = lambda *_: index(*(count - 1 for count in grid))
        launch(self, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(interpreter.GridExecutor, "__call__", run)
        # there is no device whose results are to be copied back
        patch.setattr(interpreter.GridExecutor, "_restore_args_dev", lambda *_: None)
        patch.setattr(builder, "options", replace(builder.options, debug=True))
        patch.setattr(builder, "set_grid_dim", dims)
        patch.setattr(builder, "set_grid_idx", index)
        patch.setattr(torch, "empty", unwritten)
        patch.setattr(torch, "empty_like", lambda like: unwritten(*like.shape, dtype=like.dtype))
        yield grids
