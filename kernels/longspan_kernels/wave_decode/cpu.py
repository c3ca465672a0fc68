"""A decode step over clusters in one native call."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch

from longspan_kernels.dense_decode.cpu import numbers_obstacle, rows_obstacle
from longspan_kernels.dispatch import native, not_plain, thread_count
from longspan_kernels.types import Partial, Runs, WaveStep

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from longspan_kernels.types import Stretch


def obstacle(
    q_HD: Tensor,
    centroids_GCD: Tensor,
    means_GCD: Tensor,
    start_GC: Tensor,
    size_GC: Tensor,
    stored: Sequence[Stretch],
    spread_GC: Tensor | None,
) -> str | None:
    """Why the kernel cannot take these; None if it can."""
    if start_GC.dtype != torch.int32 or size_GC.dtype != torch.int32:
        return f"starts are {start_GC.dtype}, sizes {size_GC.dtype}"
    rows = [tensor for part in stored for tensor in (part.keys_GTD, part.values_GTD)]
    for tensor in (centroids_GCD, means_GCD, *rows):
        if tensor.dtype == torch.int8:
            return "rows in int8 have no scale here"
    return (
        rows_obstacle(q_HD, centroids_GCD, means_GCD, *rows)
        or numbers_obstacle(spread_GC)
        or not_plain((start_GC, size_GC))
    )


def on(isa: str, threads: int | None) -> Callable[..., WaveStep]:
    """`wave_decode` on an instruction set."""
    return partial(wave_decode, isa=isa, threads=threads)


def wave_decode(
    q_HD: Tensor,
    centroids_GCD: Tensor,
    means_GCD: Tensor,
    start_GC: Tensor,
    size_GC: Tensor,
    stored: Sequence[Stretch],
    *,
    indexed: tuple[int, int],
    steady: Sequence[tuple[int, int]],
    retrieve: int,
    estimate: int,
    scale: float,
    softcap: float | None,
    vote: str,
    spread_GC: Tensor | None,
    gaussian: bool,
    tolerance: float,
    threads: int | None,
    isa: str,
) -> WaveStep:
    """As the reference, but that the estimated clusters come in ascending order."""
    groups, clusters, _ = centroids_GCD.shape
    if tolerance:
        retrieve += estimate  # room for those that are read instead of estimated
    bias_GC = None
    if spread_GC is not None:
        spread_GC = spread_GC.contiguous()
        bias_GC = torch.empty(groups, clusters, dtype=torch.float32)
    counts_2G = torch.empty(2, groups, dtype=torch.int32)
    runs_2GK = torch.empty(2, groups, retrieve, dtype=torch.int32)
    estimated = Runs(torch.empty(groups, estimate, dtype=torch.int32), None, counts_2G[1])
    retrieved = Runs(runs_2GK[0], runs_2GK[1], counts_2G[0])
    total = Partial(torch.empty(q_HD.shape, dtype=torch.float32), torch.empty(q_HD.shape[0]))
    native.wave_decode(
        q_HD,
        centroids_GCD,
        means_GCD,
        start_GC.contiguous(),
        size_GC.contiguous(),
        [part.keys_GTD for part in stored],
        [part.values_GTD for part in stored],
        [part.first for part in stored],
        list(steady),
        indexed,
        vote == "max",
        scale,
        softcap or 0.0,
        spread_GC,
        vote == "mass",
        gaussian,
        tolerance,
        bias_GC,
        retrieved.start_NK,
        runs_2GK[1],
        retrieved.count_N,
        estimated.start_NK,
        estimated.count_N,
        *total,
        thread_count(threads),
        isa,
    )
    return WaveStep(total, retrieved, estimated, bias_GC if gaussian else None)
