"""What is timed on a GPU, and beside what."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
import triton

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

GROUPS, RATIO, WIDTH, CLUSTER, PAGE = 8, 4, 128, 16, 8
SCALE = WIDTH**-0.5
BUDGET, ESTIMATE = 0.018, 0.232
attended = F.scaled_dot_product_attention


def seconds(call: Callable[[], object]) -> float:
    """Median of a call in a CUDA graph, so that launching it from Python is not what is timed."""
    return float(triton.testing.do_bench_cudagraph(call, rep=60, return_mode="median")) / 1e3


def ran(call: Callable[[], object]) -> float:
    """Median of a call that no graph can hold."""
    return float(triton.testing.do_bench(call, warmup=10, rep=60, return_mode="median")) / 1e3


def copied() -> float:
    """Bytes a second that a copy reads and writes."""
    source = torch.ones(1 << 28, dtype=torch.int32, device="cuda")
    target = torch.empty_like(source)
    return 2 * source.nbytes / ran(lambda: target.copy_(source))


def row(
    name: str, taken: float, moved: float, peak: float, torchs: float | None
) -> tuple[str, ...]:
    """A line of the table of what memory limits."""
    beside = ("-", "-") if torchs is None else (f"{torchs * 1e6:.0f}", f"{torchs / taken:.1f}x")
    rate = moved / taken
    return (name, f"{taken * 1e6:.0f}", f"{rate / 1e9:.0f}", f"{rate / peak:.0%}", *beside)


def count(source_NK: Tensor) -> Tensor:
    """How many entries each row has: all."""
    return torch.full((len(source_NK),), source_NK.shape[1], device="cuda").int()
