"""What a run holds in memory, and the most it ever held."""

from __future__ import annotations

import resource
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from longspan.methods.base import LayerState


@contextmanager
def peaks(device: torch.device) -> Iterator[dict[str, int | None]]:
    """Fills in the most memory that the process held during the block and, where the model is on a
    GPU, all GPUs.
    """
    found: dict[str, int | None] = {"peak_host_bytes": None, "peak_device_bytes": None}
    with suppress(OSError):  # elsewhere than on Linux the peak is that of the process so far
        Path("/proc/self/clear_refs").write_text("5")
    if device.type == "cuda":
        for index in range(torch.cuda.device_count()):
            torch.cuda.reset_peak_memory_stats(index)
    yield found
    found["peak_host_bytes"] = peak_host_bytes()
    if device.type == "cuda":
        each = map(torch.cuda.max_memory_allocated, range(torch.cuda.device_count()))
        found["peak_device_bytes"] = sum(each)


def peak_host_bytes() -> int:
    """The most memory that the process held, in bytes."""
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def held(states: Sequence[LayerState]) -> dict[str, int]:
    """What the layer states hold now."""
    each = [state.memory() for state in states]
    return {
        "kv_bytes": sum(one["kv_bytes"] for one in each),
        "index_bytes": sum(one["index_bytes"] for one in each),
    }
