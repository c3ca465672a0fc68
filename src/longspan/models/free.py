"""How much memory a device, or this process on the host, can still have."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

HOST = torch.device("cpu")
PROC, CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")
LIMITS = (
    ("memory.max", "memory.current"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes"),
)
"""Of a control group, by version."""
CACHED = ("active_file", "inactive_file")


def available(device: torch.device) -> int | None:
    """Bytes that can still be had; None where that is not known."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(free) + unused
    if device.type != "cpu":
        return None
    lines = _lines(PROC / "meminfo")
    machine = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    return min([*machine, *_groups()], default=None)


def _groups() -> Iterator[int]:
    """Bytes that each control group around this process leaves it; files that are cached can go."""
    for line in _lines(PROC / "self" / "cgroup"):
        _, kinds, name = line.split(":", 2)
        if kinds and "memory" not in kinds.split(","):
            continue
        root = CGROUPS / ("memory" if kinds else "")
        inner = root / name.lstrip("/")
        for folder in (inner, *inner.parents):
            if not folder.is_relative_to(root):
                break
            limit, used = (_lines(folder / file) for file in LIMITS[bool(kinds)])
            if limit and used and limit[0].isdigit():  # else it is "max", or is not seen from here
                stat = dict(each.split() for each in _lines(folder / "memory.stat"))
                cached = (stat.get(f"total_{kind}", stat.get(kind, 0)) for kind in CACHED)
                yield int(limit[0]) - int(used[0]) + sum(map(int, cached))


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
