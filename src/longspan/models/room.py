"""Whether what a session will hold fits its limits and memory: said before anything is read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from longspan.models.decoder import of_method
from longspan.models.window import slots

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from longspan.methods.base import Method
    from longspan.models.decoder import Decoder, Row
    from longspan.types import LayerGeometry

HOST = torch.device("cpu")
PROC, CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")
LIMITS = (
    ("memory.max", "memory.current"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes"),
)
"""Of a control group, by version."""
CACHED = ("active_file", "inactive_file")
WAYS = (
    ", as many as the model has positions: a smaller ctx would fit, or, where they are rotary,"
    " model.config.rope_parameters that stretch them"
)


def check_lengths(
    rows: Sequence[Row], added: Sequence[Sequence[int]], limit: int | None, positions: int | None
) -> None:
    """Raises ValueError where rows would be left empty, or hold more tokens than `limit` or
    `positions`; RuntimeError where one is broken.
    """
    most = min((each for each in (limit, positions) if each is not None), default=None)
    ways = "" if positions is None or most != positions else WAYS
    if len(added) != len(rows):
        raise ValueError(f"{len(added)} rows of tokens for a session of {len(rows)} rows")
    for number, (row, ids) in enumerate(zip(rows, added, strict=True)):
        row.check()
        total = row.length + len(ids)
        if total == 0:
            raise ValueError(f"row {number} has no token; a prompt needs at least one")
        if most is not None and total > most:
            raise ValueError(
                f"row {number} would hold {total} tokens; the session takes {most}{ways}"
            )


def check_room(
    method: Method,
    geometries: Sequence[LayerGeometry],
    windows: Sequence[int | None],
    new_tokens: Iterable[int],
) -> None:
    """Raises ValueError with the estimate and what to change where keys and values of so many more
    tokens a row do not fit. Indexes and activations are not in the estimate, so that what is
    refused could not have worked.
    """
    if getattr(method, "place", None) is None:
        return  # what only plays a method's part does not say where it stores
    rows = list(new_tokens)
    need = needed(method, geometries, windows, rows)
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
    method: Method,
    geometries: Sequence[LayerGeometry],
    windows: Sequence[int | None],
    rows: Sequence[int],
) -> Mapping[torch.device, int]:
    """Bytes of keys and values by device; those of sliding windows lie where the model is."""
    place = method.place
    need: dict[torch.device, int] = {}
    for geometry, window in zip(geometries, windows, strict=True):
        token_bytes = geometry.kv_heads * geometry.entry_bytes
        tokens = sum(rows) if window is None else sum(slots(row, window) for row in rows if row)
        shares = {geometry.device: 1.0}
        if window is None and place.placement != "gpu":
            shares = {HOST: 1.0}
        if window is None and place.placement == "wave_buffer":
            shares[geometry.device] = shares.get(geometry.device, 0.0) + place.cache_budget
        for device, share in shares.items():
            need[device] = need.get(device, 0) + round(share * token_bytes * tokens)
    return need


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


def gib(count: int) -> str:
    """In words."""
    return f"{count / 2**30:.1f} GiB"


def check_pools(
    method: Method,
    decoder: Decoder,
    rows: Sequence[Row],
    limits: Sequence[int],
    *,
    buffered: bool = True,
) -> None:
    """Raises ValueError with the estimate where buffers of so many tokens a row, those of the
    method's layers if they are `buffered`, do not fit beside what the rows hold. Layers move one by
    one, and what a row has for itself alone is freed.
    """
    sizes = _pools(method, decoder, rows, limits, buffered=buffered)
    moved = buffered and not _cached(method)
    alone: list[Any] = [row.states for row in rows if moved and not row.shared]
    freed = [
        0 if window is not None else sum(states[layer].store.nbytes for states in alone)
        for layer, window in enumerate(decoder.windows)
    ]
    for device in dict.fromkeys(device for device, _ in sizes):
        here = [layer for layer, (at, _) in enumerate(sizes) if at == device]
        layers = [sizes[layer][1] for layer in here]
        wanted = sum(layers) + max(layers) - sum(freed[layer] for layer in here)
        free = available(device)
        if free is not None and wanted > free:
            raise ValueError(
                f"model.graphs: buffers of {max(limits)} tokens for {len(rows)} rows need"
                f" {gib(wanted)} more, and {gib(free)} are free; right would be a smaller ctx or"
                " batch, or model.graphs=off"
            )


def _pools(
    method: Method,
    decoder: Decoder,
    rows: Sequence[Row],
    limits: Sequence[int],
    *,
    buffered: bool,
) -> list[tuple[torch.device, int]]:
    """Where the buffers of each layer lie, and their bytes."""
    slots, table = float(len(rows) * max(limits)), 0
    if buffered and _cached(method):
        # what is frozen stays in host memory; of each of its slots there is a number here
        frozen = [of_method(row.states)[0].store.frozen for row in rows]
        slots = len(rows) * max(map(int.__sub__, limits, frozen))
        slots += method.place.cache_budget * sum(frozen)
        table = 4 * len(rows) * max(frozen)
    sizes = []
    for each, window in zip(decoder.geometries, decoder.windows, strict=True):
        if window is not None:
            size = len(rows) * min(window, max(limits)) * each.entry_bytes
        else:
            size = round(slots * (each.entry_bytes + 4) + table) if buffered else 0
        sizes.append((each.device, each.kv_heads * size))
    return sizes


def _cached(method: Method) -> bool:
    place = getattr(method, "place", None)
    return place is not None and place.placement == "wave_buffer"
