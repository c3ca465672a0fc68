"""The functions of torch.cuda that the project, and torch's own `torch.cuda.graph`, call.

There are two devices. Not emulated: streams that run beside one another, memory that ends, and
torch's flash attention, which the compute capability rules out.
"""

from __future__ import annotations

import importlib
import threading
from functools import cache
from types import SimpleNamespace
from typing import Any

import torch
from tests.emulated import captures, factories, guard, launches, pinned
from tests.emulated.rules import HERE, THERE, capturing, gpu, wait
from torch.utils._device import _device_constructors

GIB = 1 << 30
PROPERTIES = SimpleNamespace(
    name="emulated", major=7, minor=5, total_memory=80 * GIB, multi_processor_count=1,
)  # fmt: skip


class Stream:
    """All of them run what they are given at once."""

    def __init__(self, device: Any = None, priority: int = 0) -> None:
        self.device = _gpu(device)

    def wait_stream(self, other: Stream) -> None:
        """Work of another stream is not part of a capture."""
        if (capture := capturing()) is not None and capture.stream in (self, other):
            capture.spoil("a stream that waits for another within a capture is not emulated")

    def wait_event(self, event: Event) -> None:
        self.wait_stream(event.stream)

    def record_event(self, event: Event | None = None) -> Event:
        event = Event() if event is None else event
        event.record(self)
        return event

    def synchronize(self) -> None:
        wait("Stream.synchronize", known=False)

    def query(self) -> bool:
        wait("Stream.query", known=False)
        return True


class Event:
    """Has happened as soon as it is recorded."""

    def __init__(self, enable_timing: bool = False, **_: Any) -> None:
        self.stream = current_stream()

    def record(self, stream: Stream | None = None) -> None:
        self.stream = stream or current_stream()

    def wait(self, stream: Stream | None = None) -> None:
        (stream or current_stream()).wait_event(self)

    def synchronize(self) -> None:
        wait("Event.synchronize", known=False)

    def query(self) -> bool:
        wait("Event.query", known=False)
        return True

    def elapsed_time(self, other: Event) -> float:
        return 0.0


DEVICES = 2
CURRENT = threading.local()
"""Streams by device."""


@cache
def _default_stream(device: torch.device) -> Stream:
    return Stream(device)


def default_stream(device: Any = None) -> Stream:
    """See torch.cuda.default_stream."""
    return _default_stream(_gpu(device))


def current_stream(device: Any = None) -> Stream:
    """See torch.cuda.current_stream."""
    found: Stream = _current().get(_gpu(device), default_stream(device))
    return found


def set_stream(stream: Stream) -> None:
    """See torch.cuda.set_stream, which makes the stream's device the current one."""
    _current()[stream.device] = stream
    set_device(stream.device)


def set_device(device: Any) -> None:
    """See torch.cuda.set_device."""
    exchange_device(_gpu(device).index)


def exchange_device(index: int) -> int:
    """See torch.cuda.device; a negative one changes nothing."""
    before = gpu().index
    if index >= 0:
        THERE.device = index
    return before


def _current() -> dict[torch.device, Stream]:
    if not hasattr(CURRENT, "streams"):
        CURRENT.streams = {}
    streams: dict[torch.device, Stream] = CURRENT.streams
    return streams


def _gpu(device: Any) -> torch.device:
    return gpu(torch.device("cuda", device) if isinstance(device, int) else device)


def synchronize(device: Any = None) -> None:
    """See torch.cuda.synchronize."""
    wait("torch.cuda.synchronize", known=False)


def set_sync_debug_mode(mode: int | str) -> None:
    """See torch.cuda.set_sync_debug_mode."""
    HERE.waits_are_errors = mode in ("error", 2)


def nothing(*_: Any, **__: Any) -> int:
    """What has no consequence, or is none."""
    return 0


REPLACED: dict[str, Any] = {
    "CUDAGraph": captures.CUDAGraph,
    "Event": Event,
    "Stream": Stream,
    "_exchange_device": exchange_device,
    "_lazy_init": nothing,
    "_maybe_exchange_device": exchange_device,
    "cudart": pinned.Runtime,
    "current_device": lambda: gpu().index,
    "current_stream": current_stream,
    "default_stream": default_stream,
    "device_count": lambda: DEVICES,
    "empty_cache": nothing,
    "get_device_name": lambda device=None: PROPERTIES.name,
    "get_device_properties": lambda device=None: PROPERTIES,
    "get_sync_debug_mode": lambda: 2 * HERE.waits_are_errors,
    "graph_pool_handle": captures.Pool,
    "is_available": lambda: True,
    "is_current_stream_capturing": lambda: capturing() is not None,
    "is_initialized": lambda: True,
    "manual_seed": nothing,
    "manual_seed_all": nothing,
    "max_memory_allocated": nothing,
    "mem_get_info": lambda device=None: (64 * GIB, PROPERTIES.total_memory),
    "memory_allocated": nothing,
    "memory_reserved": nothing,
    "reset_peak_memory_stats": nothing,
    "set_device": set_device,
    "set_stream": set_stream,
    "set_sync_debug_mode": set_sync_debug_mode,
    "synchronize": synchronize,
}
PINNING = ("empty", "empty_like", "full", "ones", "tensor", "zeros", "zeros_like")


def install() -> Any:
    """Give this process a GPU, for good; hold what this returns."""
    importlib.import_module("transformers.modeling_utils")  # which looks for a GPU only now
    guard.load()
    for name, replacement in REPLACED.items():
        setattr(torch.cuda, name, replacement)
    _device_constructors()  # torch keeps the list, by which `with torch.device(...)` knows them
    for name in PINNING:
        setattr(torch, name, pinned.maker(getattr(torch, name)))
    c_functions: Any = torch._C
    # a parameter that is moved becomes another, as the class says where it is
    whole: Any = torch
    alike = torch._has_compatible_shallow_copy_type
    whole._has_compatible_shallow_copy_type = lambda a, b: type(a) is type(b) and alike(a, b)
    c_functions._cuda_hasPrimaryContext = lambda index: True
    c_functions._host_emptyCache = nothing
    torch.Tensor.is_pinned = pinned.is_pinned  # type: ignore[method-assign,assignment]
    torch.Tensor.pin_memory = pinned.locked_copy  # type: ignore[method-assign,assignment]
    launches.install()
    return factories.register()
