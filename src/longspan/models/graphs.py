"""CUDA graphs of decode steps: whether there can be one, and what happens where it fails."""

from __future__ import annotations

import gc
import logging
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import torch

from longspan.models.decoder import fixed_shapes
from longspan.models.pieces import Pieces, never
from longspan.models.static import StaticStep

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from torch import Tensor

    from longspan.methods.base import Method
    from longspan.models.decoder import Decoder, Graphs, Row
    from longspan.models.pieces import Between

WARM_UP = 2


def capture(step: StaticStep) -> None:
    """Make graphs of the step, on its devices whichever is current."""
    step.say([0] * len(step.rows))
    step.pieces, step.logits_BV = recorded(step.step, _devices(step.decoder), step.between)


def recorded(
    call: Callable[[], Tensor], devices: Sequence[torch.device], between: Between
) -> tuple[Pieces, Tensor]:
    """Graphs of what a call does, which begins on the first of its devices, and what it gives, as
    replays will have it. Calls before it compile kernels, without what is done between graphs, so
    that one done again must change nothing. Raises whatever it does, RuntimeError where it cannot
    be captured.
    """
    with torch.cuda.device(devices[0]), same_streams(devices):
        streams = {device: torch.cuda.Stream(device) for device in devices}  # type: ignore[no-untyped-call]
        between.by = never
        warm_up(call, streams)
        with no_finalizers(), Pieces(streams, between) as pieces:
            found = call()
        for device in devices:
            torch.cuda.synchronize(device)  # what the warm-up says to the host is said
    return pieces, found


def warm_up(call: Callable[[], object], streams: Mapping[torch.device, torch.cuda.Stream]) -> None:
    """On these streams; the last time, RuntimeError where it waits for the device."""
    with ExitStack() as entered:
        for device, side in streams.items():
            before = torch.cuda.current_stream(device)
            side.wait_stream(before)
            # what failed half-way may still be writing
            entered.callback(before.wait_stream, side)
            entered.enter_context(torch.cuda.stream(side))
        entered.enter_context(torch.cuda.device(next(iter(streams))))
        for _ in range(WARM_UP):
            call()
        with no_waits():
            call()


@contextmanager
def same_streams(devices: Sequence[torch.device]) -> Iterator[None]:
    """Behind, devices have the streams from before: where a capture fails, torch leaves its own."""
    before = [torch.cuda.current_stream(device) for device in devices]
    current = torch.cuda.current_device()
    try:
        yield
    finally:
        for stream in before:
            torch.cuda.set_stream(stream)
        torch.cuda.set_device(current)


@contextmanager
def no_finalizers() -> Iterator[None]:
    """Nothing is collected: what goes then may wait for the device, which a capture does not
    survive. Who had it off before, to time steps, has it off behind.
    """
    before = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()


@contextmanager
def no_waits() -> Iterator[None]:
    """RuntimeError where the host waits for the device, which no graph can hold."""
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


def obstacle(decoder: Decoder, method: Method) -> str | None:
    """Why this model cannot decode in pieces of fixed shape; None if it can."""
    if decoder.graphs == "on" and decoder.device.type != "cuda":
        return "CUDA graphs need a CUDA device"
    placed = set(getattr(decoder.module, "hf_device_map", {}).values())
    if decoder.device.type == "cuda" and placed & {"cpu", "disk"}:
        return "weights of the model lie in host memory (model.device_map), and come at every step"
    if decoder.compiled is not None and len(_devices(decoder)) > 1:
        return "model.compile = true is for a model on one device"
    if decoder.compiled is not None and method.guesses:
        return f"model.compile = true hides what method {method.name!r} asks within a layer"
    return None


def _devices(decoder: Decoder) -> list[torch.device]:
    """That of the tokens first; some may have no layer."""
    weights = (each.device for each in decoder.module.parameters())
    return list(dict.fromkeys((decoder.device, *weights)))


def opened(
    decoder: Decoder,
    method: Method,
    rows: Sequence[Row],
    limit: int | None,
    make_room: Callable[[], bool] = lambda: False,
) -> StaticStep | None:
    """The step that decodes these rows, as `decoder.graphs` wants it; None where it leaves it to
    the states. Raises ValueError where it wants what cannot be. `make_room`: whether another try
    may find more memory.
    """
    graphs = decoder.graphs
    if not fixed_shapes(graphs, cuda=decoder.device.type == "cuda"):
        return None
    if (reason := obstacle(decoder, method)) is not None:
        if graphs == "auto":
            return None
        raise ValueError(f"model.graphs = {graphs!r}: {reason}; right would be auto or off")
    try:
        step = StaticStep(decoder, method, rows, limit)
    except (ValueError, RuntimeError):  # no memory, of the device's or of what can be pinned
        if make_room():
            return opened(decoder, method, rows, limit)
        if graphs == "auto":
            return None
        raise
    return step if graphs == "eager" or captured(step, graphs) else None


def captured(step: StaticStep, graphs: Graphs) -> bool:
    """Make the step a graph; False where that fails and `graphs` is auto."""
    try:
        capture(step)
    except BaseException as error:  # a kernel too large for the device is no RuntimeError
        step.close()
        if not isinstance(error, Exception):
            raise  # interrupted, with some of the step left out
        if graphs != "auto" and isinstance(error, torch.OutOfMemoryError):
            raise
        reason = (str(error) or type(error).__name__).splitlines()[0]
        if graphs != "auto":
            raise ValueError(f"model.graphs = {graphs!r}: no graph of a step: {reason}") from error
        logging.getLogger(__name__).warning("decoding without CUDA graphs: %s", reason)
        return False
    return True
