"""Page-locked host memory: which memory is, and since when; no page is locked in truth.

Not emulated: limits of what can be locked, and reads of the device that come after the unlocking.
"""

from __future__ import annotations

import ctypes
import weakref
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

ALREADY, NOT_YET = 712, 713
"""What CUDA says where memory is locked twice, or unlocked without having been locked."""


class Lock:
    """Of one stretch of memory, as long as that is locked."""

    def __init__(self, start: int, nbytes: int) -> None:
        self.start, self.stop = start, start + nbytes


LOCKS: dict[int, Lock] = {}


def lock_of(tensor: Tensor) -> Lock | None:
    """Torch asks of the storage, not of the view."""
    start = tensor.untyped_storage().data_ptr()
    return next((lock for lock in LOCKS.values() if lock.start <= start < lock.stop), None)


def is_pinned(tensor: Tensor, device: Any = None) -> bool:
    """See torch.Tensor.is_pinned."""
    return tensor.device.type == "cpu" and lock_of(tensor) is not None


def locked_copy(source: Tensor) -> Tensor:
    """As torch's own allocator has it: locked as long as somebody holds it."""
    raw_B = np.empty(max(source.nbytes, 1), dtype=np.uint8)
    start = raw_B.ctypes.data
    LOCKS[start] = Lock(start, raw_B.nbytes)
    weakref.finalize(raw_B, LOCKS.pop, start).atexit = False
    copy_B = torch.from_numpy(raw_B)[: source.nbytes]
    return copy_B.view(source.dtype).view(source.shape).copy_(source)


def maker(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A factory of torch's that knows `pin_memory`."""

    def made(*given: Any, pin_memory: bool = False, **named: Any) -> Tensor:
        tensor = make(*given, **named)
        return locked_copy(tensor) if pin_memory else tensor

    return made


def held_by_nobody(tensor: Tensor) -> Tensor:
    """The same memory, which this tensor does not keep."""
    storage = tensor.untyped_storage()
    raw = (ctypes.c_byte * max(storage.nbytes(), 1)).from_address(storage.data_ptr())
    flat = torch.frombuffer(raw, dtype=torch.uint8).untyped_storage()
    place = tensor.storage_offset(), tensor.size(), tensor.stride()
    return torch.empty(0, dtype=tensor.dtype).set_(flat, *place)


class Runtime:
    """What torch.cuda.cudart() gives."""

    def cudaHostRegister(self, start: int, nbytes: int, flags: int) -> int:
        del flags
        stop = start + nbytes
        if any(start < lock.stop and lock.start < stop for lock in LOCKS.values()):
            return ALREADY
        LOCKS[start] = Lock(start, nbytes)
        return 0

    def cudaHostUnregister(self, start: int) -> int:
        """What reads it from here on reads NaN, or -1."""
        lock = LOCKS.pop(start, None)
        if lock is None:
            return NOT_YET
        ctypes.memset(lock.start, 0xFF, lock.stop - lock.start)
        return 0
