"""Keys and values of one layer of one sequence: frozen parts that forks share, and a tail that
grows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import torch

from longspan.placement.part import Part
from longspan.tensors import check_shape

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

__all__ = ["KVStore", "Part"]

SLACK = 8
"""A part is copied to its exact size when more than 1/SLACK of its memory would lie idle."""


def split(buffer_GCD: Tensor, taken: int, used: int) -> tuple[Tensor, Tensor]:
    """The first `taken` of the `used` rows, and a copy of the rest; the first stay where they are
    unless much of the buffer would lie idle.
    """
    rest_GTD = buffer_GCD[:, taken:used].clone(memory_format=torch.contiguous_format)
    taken_GTD = buffer_GCD[:, :taken]
    idle = buffer_GCD.shape[1] - taken
    return (taken_GTD.contiguous() if idle > taken // SLACK else taken_GTD), rest_GTD


class KVStore:
    """Slots 0, 1, 2, ... of all KV heads, in the order of arrival until `reorder` changes it."""

    def __init__(
        self, kv_heads: int, head_size: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        self._frozen: tuple[Part, ...] = ()
        self._keys_GCD = torch.empty(kv_heads, 0, head_size, dtype=dtype, device=device)
        self._values_GCD = torch.empty_like(self._keys_GCD)
        self._used = 0

    def __len__(self) -> int:
        return self.frozen + self._used

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        return self._keys_GCD.device

    @property
    def empty_GCD(self) -> Tensor:
        """No slot, but heads, head size, dtype and device of all of them."""
        return self._keys_GCD[:, :0]

    @property
    def frozen(self) -> int:
        """How many slots are frozen: those before the tail."""
        return self._frozen[-1].stop if self._frozen else 0

    @property
    def parts(self) -> tuple[Part, ...]:
        """The frozen parts and, where it holds anything, the tail; views, contiguous in D."""
        if not self._used:
            return self._frozen
        return (*self._frozen, Part(self.frozen, *self.tail))

    @property
    def nbytes(self) -> int:
        """Bytes held, spare capacity included; parts shared with forks count in full."""
        held = sum(part.nbytes for part in self._frozen)
        return held + self._keys_GCD.nbytes + self._values_GCD.nbytes

    def append(self, k_GQD: Tensor, v_GQD: Tensor) -> None:
        """Store Q tokens behind the last; converted to the store's dtype and device."""
        groups, _, size = self._keys_GCD.shape
        new = check_shape("k", k_GQD, "GQD", G=groups, D=size)
        check_shape("v", v_GQD, "GQD", **new)
        used = self._used + new["Q"]
        if used > self._keys_GCD.shape[1]:
            self._grow(max(used, self._keys_GCD.shape[1] * 3 // 2))
        self._keys_GCD[:, self._used : used] = k_GQD
        self._values_GCD[:, self._used : used] = v_GQD
        self._used = used

    def slices(self, start: int, stop: int) -> Iterator[Part]:
        """The slots [start, stop), part by part, as views."""
        for part in self.parts:
            low, high = max(start, part.first) - part.first, min(stop, part.stop) - part.first
            if low < high:
                places = part.positions_GT
                yield Part(
                    part.first + low,
                    part.keys_GTD[:, low:high],
                    part.values_GTD[:, low:high],
                    None if places is None else places[:, low:high],
                )

    def freeze(self, stop: int) -> None:
        """Turn the slots before `stop` that are still in the tail into an immutable part."""
        first = self.frozen
        taken = stop - first
        if not 0 <= taken <= self._used:
            raise ValueError(
                f"stop is {stop}; it should lie between {first}, the slots already frozen,"
                f" and {len(self)}"
            )
        if not taken:
            return
        keys_GTD, self._keys_GCD = split(self._keys_GCD, taken, self._used)
        values_GTD, self._values_GCD = split(self._values_GCD, taken, self._used)
        self._frozen = (*self._frozen, Part(first, keys_GTD, values_GTD))
        self._used -= taken

    def reorder(self, first: int, order_GT: Tensor) -> None:
        """Bring frozen slots, per KV head, into another order: slot first + t then holds what was
        at first + order_GT[g, t].

        Parts are immutable: the one concerned is replaced, and forks keep the old one. Raises
        ValueError where the slots do not lie in one frozen part.
        """
        stop = first + order_GT.shape[1]
        for number, part in enumerate(self._frozen):
            if part.first <= first and stop <= part.stop:
                moved = part.reordered(first, order_GT.to(part.keys_GTD.device))
                self._frozen = (*self._frozen[:number], moved, *self._frozen[number + 1 :])
                return
        raise ValueError(
            f"slots [{first}, {stop}) do not lie in one frozen part; frozen are"
            f" {[(part.first, part.stop) for part in self._frozen]}"
        )

    def compact(self) -> None:
        """Join frozen parts until each is longer than the one after it.

        Each token is then copied, and the store cut into, logarithmically often.
        """
        kept: list[Part] = []
        for part in self._frozen:
            joined = part
            while kept and kept[-1].stop - kept[-1].first <= joined.stop - joined.first:
                joined = kept.pop().joined(joined)
            kept.append(joined)
        self._frozen = tuple(kept)

    def parts_before(self, stop: int) -> tuple[Part, ...]:
        """The frozen parts of the slots before `stop`, which is the end of one."""
        return tuple(part for part in self._frozen if part.stop <= stop)

    @property
    def tail(self) -> tuple[Tensor, Tensor]:
        """Keys and values that are not frozen, as views."""
        return self._keys_GCD[:, : self._used], self._values_GCD[:, : self._used]

    def lie_in(
        self, frozen: tuple[Part, ...], keys_GCD: Tensor, values_GCD: Tensor, used: int
    ) -> None:
        """Hold, in place of everything, frozen parts (of as many slots as are frozen) and the
        first `used` slots of a tail; all stay where they are.
        """
        self._frozen = frozen
        self._keys_GCD, self._values_GCD, self._used = keys_GCD, values_GCD, used

    def fork(self) -> Self:
        """A second store that grows on its own: the frozen parts are shared, the tail is copied."""
        groups, _, size = self._keys_GCD.shape
        twin = type(self)(groups, size, self._keys_GCD.dtype, self.device)
        twin._frozen, twin._used = self._frozen, self._used
        twin._keys_GCD = self._keys_GCD[:, : self._used].clone()
        twin._values_GCD = self._values_GCD[:, : self._used].clone()
        return twin

    def _grow(self, capacity: int) -> None:
        for name in ("_keys_GCD", "_values_GCD"):
            old_GCD: Tensor = getattr(self, name)
            new_GCD = old_GCD.new_empty(old_GCD.shape[0], capacity, old_GCD.shape[2])
            new_GCD[:, : self._used] = old_GCD[:, : self._used]
            setattr(self, name, new_GCD)
