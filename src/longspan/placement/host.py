"""Host memory that a GPU reads directly, and a store that keeps its frozen parts there."""

from __future__ import annotations

import weakref
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Self

import numpy as np
import torch

from longspan.placement.store import KVStore
from longspan.tensors import wait_for_devices

if TYPE_CHECKING:
    from torch import Tensor

    from longspan.placement.part import Part

HOST = torch.device("cpu")
PAGE_BYTES = 4096
SPARE_BYTES = 2 << 30
"""A prompt's keys and values stay on the GPU while this much would be left beside their growth."""


class Pin:
    """Host memory of a page-locked copy of tensors; unlocked when the last holder lets go of it.

    torch's own pinned allocator rounds up to a power of two, which for keys and values is up to
    twice the memory. Raises ValueError where the memory cannot be locked.
    """

    def __init__(self, *sources: Tensor) -> None:
        self.copies: list[Tensor] = []
        locked: list[Tensor] = []
        weakref.finalize(self, unlock, locked)
        for source in sources:
            pages_B = aligned_bytes(source.nbytes)
            lock(pages_B)
            locked.append(pages_B)
            copy = pages_B[: source.nbytes].view(source.dtype).view(source.shape)
            self.copies.append(copy.copy_(source))


def aligned_bytes(count: int) -> Tensor:
    """At least `count` bytes that share no page with other memory.

    Their storage begins with them: torch asks of a storage, not of a view, whether it is pinned.
    """
    rounded = -(-max(count, 1) // PAGE_BYTES) * PAGE_BYTES
    raw_B = np.empty(rounded + PAGE_BYTES, dtype=np.uint8)
    offset = -raw_B.ctypes.data % PAGE_BYTES
    return torch.from_numpy(raw_B[offset : offset + rounded])


def lock(pages_B: Tensor) -> None:
    """Register the memory with CUDA. Raises ValueError where that fails."""
    runtime = torch.cuda.cudart()  # type: ignore[no-untyped-call]
    code = int(runtime.cudaHostRegister(pages_B.data_ptr(), pages_B.nbytes, 0))
    if code:
        forget_error()
        raise ValueError(
            f"placement = 'wave_buffer': {pages_B.nbytes / 2**30:.2f} GiB of host memory cannot be"
            f" pinned (CUDA error {code}); a higher limit of locked memory (ulimit -l), a smaller"
            " ctx or batch, or placement=cpu would work"
        )


def forget_error() -> None:
    """Take back what a failed call of the runtime left to be found by the next kernel."""
    with suppress(RuntimeError):
        torch.zeros(1, device="cuda")


def unlock(locked: list[Tensor]) -> None:
    """Take the memory back, once no kernel reads it."""
    wait_for_devices()
    runtime = torch.cuda.cudart()  # type: ignore[no-untyped-call]
    while locked:
        runtime.cudaHostUnregister(locked.pop().data_ptr())


def room(device: torch.device) -> int:
    """Bytes that can still be allocated on a CUDA device."""
    free, _ = torch.cuda.mem_get_info(device)
    cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(free) + cached


class HostStore(KVStore):
    """Frozen parts in host memory once they are compacted, the tail near the model.

    While a prompt is read its tokens are tail; they too go to host memory where the GPU has no room
    for them. On a CPU everything is host memory and this is a KVStore.
    """

    def __init__(
        self, kv_heads: int, head_size: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        super().__init__(kv_heads, head_size, dtype, device)
        self.near = device
        self.held = False
        """Whether buffers elsewhere hold the tail and what was frozen last: nothing moves then."""

    def append(self, k_GQD: Tensor, v_GQD: Tensor) -> None:
        """See KVStore."""
        if self.near.type == "cuda":
            if k_GQD.shape[1] == 1:  # a step, or the last of a prompt, which is not frozen yet
                if self.frozen:
                    self._tail_to(self.near)
            elif self.device == self.near:
                # growing holds the old and the half longer new buffer, of K or of V
                wanted = 2 * (self._keys_GCD.nbytes + k_GQD.nbytes) * 3 // 2
                if wanted + SPARE_BYTES > room(self.near):
                    self._tail_to(HOST)
        super().append(k_GQD, v_GQD)

    def compact(self) -> None:
        """See KVStore. Parts on the GPU go to host memory; all are page-locked."""
        if self.held:
            return
        if self.near.type != "cuda":
            super().compact()
            return
        self._frozen = tuple(homed(part) for part in self._frozen)
        super().compact()
        self._frozen = tuple(homed(part) for part in self._frozen)
        self._tail_to(self.near)

    def fork(self) -> Self:
        """See KVStore."""
        twin = super().fork()
        twin.near = self.near
        return twin

    def _tail_to(self, device: torch.device) -> None:
        if self.device != device:
            self._keys_GCD = self._keys_GCD[:, : self._used].to(device)
            self._values_GCD = self._values_GCD[:, : self._used].to(device)


def homed(part: Part) -> Part:
    """The part in page-locked host memory."""
    if part.pin is not None:
        return part
    pin = Pin(part.keys_GTD, part.values_GTD)
    places_GT = part.positions_GT
    return replace(
        part,
        keys_GTD=pin.copies[0],
        values_GTD=pin.copies[1],
        positions_GT=None if places_GT is None else places_GT.to(HOST),
        pin=pin,
    )
