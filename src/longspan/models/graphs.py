"""CUDA graphs of decode steps: whether there can be one, and what happens where it fails."""

from __future__ import annotations

import gc
import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from longspan.models.decoder import fixed_shapes
from longspan.models.static import StaticStep

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from longspan.methods.base import Method
    from longspan.models.decoder import Decoder, Graphs, Row

WARM_UP = 2


def capture(step: StaticStep) -> None:
    """Make a graph of the step, on its device whichever is current. Steps before it compile
    kernels; they store the same token at the same place as the replay will. Raises whatever a step
    does, RuntimeError where it cannot be captured.
    """
    with torch.cuda.device(step.decoder.device):
        step.say([0] * len(step.rows))
        before = torch.cuda.current_stream()
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(before)
        try:
            with torch.cuda.stream(side):
                for _ in range(WARM_UP):
                    step.step()
                with no_waits():
                    step.step()
        finally:
            before.wait_stream(side)  # what failed half-way may still be writing
        graph = torch.cuda.CUDAGraph()
        try:
            with no_finalizers(), torch.cuda.graph(graph, stream=side):
                step.logits_BV = step.step()
        finally:
            torch.cuda.set_stream(before)  # where a capture failed, torch leaves its own
        torch.cuda.synchronize()  # what the warm-up says to the host is said
        step.graph = graph


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
    """Why this model cannot decode with this method on fixed buffers; None if it can."""
    if decoder.graphs == "on" and decoder.device.type != "cuda":
        return "CUDA graphs need a CUDA device"
    if any(window is not None for window in decoder.windows):
        return "the model has layers of a sliding window, whose states move"
    devices = {geometry.device for geometry in decoder.geometries} | {decoder.device}
    if len(devices) > 1:
        return f"the model lies on {len(devices)} devices; a graph is of one"
    return method.static_obstacle(decoder.device)


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
    except Exception as error:  # a kernel too large for the device is no RuntimeError
        step.close()
        if graphs != "auto" and isinstance(error, torch.OutOfMemoryError):
            raise
        reason = (str(error) or type(error).__name__).splitlines()[0]
        if graphs != "auto":
            raise ValueError(f"model.graphs = {graphs!r}: no graph of a step: {reason}") from error
        logging.getLogger(__name__).warning("decoding without CUDA graphs: %s", reason)
        return False
    return True
