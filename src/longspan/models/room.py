"""Whether what a session will hold fits its limits and memory: said before anything is read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from longspan.methods.base import Method
    from longspan.models.decoder import Row
    from longspan.types import LayerGeometry

HOST = torch.device("cpu")


def check_lengths(rows: Sequence[Row], added: Sequence[Sequence[int]], limit: int | None) -> None:
    """Raises ValueError where rows would be left empty, or hold more tokens than `limit`."""
    if len(added) != len(rows):
        raise ValueError(f"{len(added)} rows of tokens for a session of {len(rows)} rows")
    for number, (row, ids) in enumerate(zip(rows, added, strict=True)):
        total = row.length + len(ids)
        if total == 0:
            raise ValueError(f"row {number} has no token; a prompt needs at least one")
        if limit is not None and total > limit:
            raise ValueError(f"row {number} would hold {total} tokens; the session takes {limit}")


def check_room(
    method: Method, geometries: Sequence[LayerGeometry], new_tokens: Iterable[int]
) -> None:
    """Raises ValueError with the estimate and what to change where keys and values of so many more
    tokens a row do not fit. Indexes and activations are not in the estimate, so that what is
    refused could not have worked.
    """
    if getattr(method, "place", None) is None:
        return  # what only plays a method's part does not say where it stores
    rows = list(new_tokens)
    need = needed(method, geometries, sum(rows))
    for device, wanted in need.items():
        free = available(device)
        if free is None or wanted <= free:
            continue
        host = device.type == "cpu"
        ways = "a smaller ctx or batch"
        if not host:
            ways += ", or method.placement=wave_buffer or cpu where the method has it,"
        raise ValueError(
            f"method.placement = {method.place.placement!r}: keys and values of {len(rows)} rows of"
            f" up to {max(rows)} tokens need {gib(wanted)} of {'host' if host else 'GPU'} memory,"
            f" and {gib(free)} are free; {ways} would fit"
        )


def needed(
    method: Method, geometries: Sequence[LayerGeometry], tokens: int
) -> Mapping[torch.device, int]:
    """Bytes of keys and values by device."""
    place = method.place
    need: dict[torch.device, int] = {}
    for geometry in geometries:
        row_bytes = 2 * geometry.kv_heads * geometry.head_size * geometry.dtype.itemsize
        shares = {geometry.device: 1.0}
        if place.placement != "gpu":
            shares = {HOST: 1.0}
        if place.placement == "wave_buffer":
            shares[geometry.device] = shares.get(geometry.device, 0.0) + place.cache_budget
        for device, share in shares.items():
            need[device] = need.get(device, 0) + round(share * row_bytes * tokens)
    return need


def available(device: torch.device) -> int | None:
    """Bytes that can still be had; None where that is not known."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(free) + unused
    meminfo = Path("/proc/meminfo")
    if device.type != "cpu" or not meminfo.exists():
        return None
    for line in meminfo.read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def gib(count: int) -> str:
    """In words."""
    return f"{count / 2**30:.1f} GiB"


def check_pools(
    method: Method, geometries: Sequence[LayerGeometry], rows: Sequence[Row], limits: Sequence[int]
) -> None:
    """Raises ValueError with the estimate where buffers of so many tokens a row do not fit beside
    what the rows hold. Layers move one by one, and what a row has for itself alone is freed.
    """
    place, tokens, cached, table = getattr(method, "place", None), max(limits), 0.0, 0
    freed = sum(state.store.nbytes for row in rows if not row.shared for state in row.states)  # type: ignore[attr-defined]
    if place is not None and place.placement == "wave_buffer":
        # what is frozen stays in host memory; of each of its slots there is a number here
        frozen = [row.states[0].store.frozen for row in rows]  # type: ignore[attr-defined]
        tokens = max(map(int.__sub__, limits, frozen))
        cached, freed = place.cache_budget * sum(frozen), 0
        table = 4 * len(rows) * max(frozen)
    slots = len(rows) * tokens + cached
    layers = [
        round(each.kv_heads * (slots * (2 * each.head_size * each.dtype.itemsize + 4) + table))
        for each in geometries
    ]
    wanted, free = sum(layers) + max(layers) - freed, available(geometries[0].device)
    if free is not None and wanted > free:
        raise ValueError(
            f"model.graphs: buffers of {tokens} tokens for {len(rows)} rows need {gib(wanted)}"
            f" more, and {gib(free)} are free; right would be a smaller ctx or batch, or"
            " model.graphs=off"
        )
