"""Whether what a session will hold fits its limits and memory: said before anything is read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from longspan.models.decoder import of_method
from longspan.models.free import HOST, available
from longspan.models.window import slots
from longspan.types import StepBytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import torch

    from longspan.methods.base import Method
    from longspan.models.decoder import Decoder, Row
    from longspan.types import LayerGeometry

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
    insisted: bool = False,
) -> None:
    """Raises ValueError with the estimate and what to change where keys and values of so many more
    tokens a row do not fit, and, where steps of fixed shape are `insisted` on, what these keep
    beside them. Other indexes and activations are not in the estimate, so that what is refused
    could not have worked.
    """
    if getattr(method, "place", None) is None:
        return  # what only plays a method's part does not say where it stores
    rows, beside = list(new_tokens), ""
    need, read = dict(needed(method, geometries, windows, rows)), [row for row in rows if row]
    if insisted and read:
        beside, steps = " and what steps keep", step_bytes(method, geometries, windows, read, read)
        for geometry, step in zip(geometries, steps, strict=True):
            kept = 0 if step is None else step.kept
            need[geometry.device] = need.get(geometry.device, 0) + kept
    for device, wanted in need.items():
        free = available(device)
        if free is None or wanted <= free:
            continue
        host = device.type == "cpu"
        ways = "a smaller ctx or batch"
        if not host:
            ways += ", or method.placement=wave_buffer or cpu where the method has it,"
        raise ValueError(
            f"method.placement = {method.place.placement!r}: keys and values{beside} of {len(rows)}"
            f" rows of up to {max(rows)} tokens need {gib(wanted)} of"
            f" {'host' if host else 'GPU'} memory, and {gib(free)} are free; {ways} would fit"
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


def gib(count: int) -> str:
    """In words."""
    return f"{count / 2**30:.1f} GiB"


def step_bytes(
    method: Method,
    geometries: Sequence[LayerGeometry],
    windows: Sequence[int | None],
    held: Sequence[int],
    limits: Sequence[int],
) -> list[StepBytes | None]:
    """Of steps of fixed shape, by layer, as the method says it where rows hold so many tokens; None
    where it has no buffers.
    """
    said = getattr(method, "static_bytes", lambda *_: StepBytes())
    return [
        said(each, held, limits)
        if window is None and method.static_obstacle(each) is None
        else None
        for each, window in zip(geometries, windows, strict=True)
    ]


def check_pools(
    method: Method, decoder: Decoder, rows: Sequence[Row], limits: Sequence[int]
) -> None:
    """Raises ValueError with the estimate where buffers of so many tokens a row do not fit beside
    what the rows hold. Layers move one by one, and what a row has for itself alone is freed.
    """
    lengths = [row.length for row in rows]
    steps = step_bytes(method, decoder.geometries, decoder.windows, lengths, limits)
    sizes = pools(method, decoder, rows, limits, steps)
    alone: list[Any] = [row.states for row in rows if not row.shared]
    freed = [
        sum(_moved(states[layer], step, whole=not _cached(method)) for states in alone)
        for layer, step in enumerate(steps)
    ]
    for device in dict.fromkeys(each.device for each in decoder.geometries):
        here = [layer for layer, each in enumerate(decoder.geometries) if each.device == device]
        passing = (step.passing for layer in here if (step := steps[layer]) is not None)
        most = max(*(sizes[layer] for layer in here), *passing, 0)
        wanted = sum(sizes[layer] - freed[layer] for layer in here) + most
        free = available(device)
        if free is not None and wanted > free:
            raise ValueError(
                f"model.graphs: buffers of {max(limits)} tokens for {len(rows)} rows need"
                f" {gib(wanted)} more, and {gib(free)} are free; right would be a smaller ctx or"
                " batch, or model.graphs=off"
            )


def pools(
    method: Method,
    decoder: Decoder,
    rows: Sequence[Row],
    limits: Sequence[int],
    steps: Sequence[StepBytes | None],
) -> list[int]:
    """Bytes of the buffers of each layer, with what else its steps keep."""
    slots, table = float(len(rows) * max(limits)), 0
    if _cached(method):
        # what is frozen but the sinks stays in host memory; a slot of it has a number here
        frozen = [of_method(row.states)[0].store.frozen for row in rows]
        sink: int = getattr(method, "sink_tokens", 0)
        far = [max(0, each - sink) for each in frozen]
        slots = len(rows) * max(map(int.__sub__, limits, far))
        slots += method.place.cache_budget * sum(far)
        table = 4 * len(rows) * max(frozen)
    sizes = []
    for each, window, step in zip(decoder.geometries, decoder.windows, steps, strict=True):
        size = 0.0 if step is None else slots * (each.entry_bytes + 4) + table
        if window is not None:
            size = len(rows) * min(window, max(limits)) * each.entry_bytes
        sizes.append(round(each.kv_heads * size) + (0 if step is None else step.kept))
    return sizes


def _moved(state: Any, step: StepBytes | None, *, whole: bool) -> int:
    """Bytes of a state that goes into buffers, with all of its keys and values or without."""
    if step is None:
        return 0
    kept = state.store.nbytes if whole else 0
    return int(kept + (state.memory()["index_bytes"] if step.moved else 0))


def _cached(method: Method) -> bool:
    place = getattr(method, "place", None)
    return place is not None and place.placement == "wave_buffer"
