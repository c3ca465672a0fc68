"""The operation `merge`; see README.md for the maths."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from longspan_kernels.dispatch import path
from longspan_kernels.merge import cpu, reference
from longspan_kernels.on_gpu import triton_serves
from longspan_kernels.types import Partial

if TYPE_CHECKING:
    from collections.abc import Sequence

    from longspan_kernels.dispatch import Backend

__all__ = ["merge"]


def merge(
    partials: Sequence[Partial],
    *,
    stacked: bool = False,
    backend: Backend = "auto",
    threads: int | None = None,
) -> Partial:
    """Attention over the union of disjoint parts, each given by its output and log-sum-exp.

    Shapes as in `Partial`, float32, decode or prefill; `stacked`: each is several parts, over its
    first axis. Parts whose lse is -inf count nothing; where
    all are, the result is out = 0, lse = -inf. Raises ValueError where shapes differ or there is no
    part.
    """
    if not partials:
        raise ValueError("partials is empty; merging needs at least one partial attention")
    shape, lead = partials[0].out.shape, int(stacked)
    for part in partials:
        if part.out.shape[lead:] != shape[lead:] or part.lse.shape != part.out.shape[:-1]:
            raise ValueError(
                f"partials have out {list(part.out.shape)} with lse {list(part.lse.shape)} beside"
                f" out {list(shape)}; right is one shape, and lse without the last dimension"
            )
    if triton_serves(backend, (), [tensor for part in partials for tensor in part]):
        from longspan_kernels.merge import triton

        return triton.merge(partials, stacked)
    if stacked:
        outs, lses = (torch.cat(each).unbind() for each in zip(*partials, strict=True))
        partials = [Partial(*both) for both in zip(outs, lses, strict=True)]
    isa = path(backend, cpu.obstacle(partials))
    if isa is None:
        return reference.merge(partials)
    return cpu.merge(partials, threads=threads, isa=isa)
