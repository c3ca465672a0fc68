"""The operation `merge`; see README.md for the maths."""

from __future__ import annotations

from typing import TYPE_CHECKING

from longspan_kernels.dispatch import path
from longspan_kernels.merge import cpu, reference
from longspan_kernels.on_gpu import triton_serves

if TYPE_CHECKING:
    from collections.abc import Sequence

    from longspan_kernels.dispatch import Backend
    from longspan_kernels.types import Partial

__all__ = ["merge"]


def merge(
    partials: Sequence[Partial], *, backend: Backend = "auto", threads: int | None = None
) -> Partial:
    """Attention over the union of disjoint parts, each given by its output and log-sum-exp.

    Shapes as in `Partial`, float32, decode or prefill. Parts whose lse is -inf count nothing; where
    all are, the result is out = 0, lse = -inf. Raises ValueError where shapes differ or there is no
    part.
    """
    if not partials:
        raise ValueError("partials is empty; merging needs at least one partial attention")
    shape = partials[0].out.shape
    for part in partials:
        if part.out.shape != shape or part.lse.shape != shape[:-1]:
            raise ValueError(
                f"partials have out {list(part.out.shape)} with lse {list(part.lse.shape)} beside"
                f" out {list(shape)}; right is one shape, and lse without the last dimension"
            )
    if triton_serves(backend, (), [tensor for part in partials for tensor in part]):
        from longspan_kernels.merge import triton

        return triton.merge(partials)
    isa = path(backend, cpu.obstacle(partials))
    if isa is None:
        return reference.merge(partials)
    return cpu.merge(partials, threads=threads, isa=isa)
