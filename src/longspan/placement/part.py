"""A stretch of a store's slots."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Part:
    """Slots [first, first + T) of a store."""

    first: int
    keys_GTD: Tensor
    values_GTD: Tensor
    positions_GT: Tensor | None = None
    """int32: where in the sequence each slot's token stands; None: at the slot's own number."""
    pin: object | None = None
    """Keeps the memory page-locked, where it is."""

    @property
    def stop(self) -> int:
        """One past the last slot."""
        return self.first + self.keys_GTD.shape[1]

    @property
    def nbytes(self) -> int:
        """Bytes of the tensors."""
        tensors = (self.keys_GTD, self.values_GTD, self.positions_GT)
        return sum(tensor.nbytes for tensor in tensors if tensor is not None)

    @property
    def places_GT(self) -> Tensor:
        """int32: `positions_GT`, written out where it is None."""
        if self.positions_GT is not None:
            return self.positions_GT
        device = self.keys_GTD.device
        slots_T = torch.arange(self.first, self.stop, dtype=torch.int32, device=device)
        return slots_T.expand(self.keys_GTD.shape[0], -1)

    def reordered(self, first: int, order_GT: Tensor) -> Part:
        """A copy in which slot first + t of head g holds what was at first + order_GT[g, t]."""
        low = first - self.first
        return Part(
            self.first,
            permute(self.keys_GTD, low, order_GT),
            permute(self.values_GTD, low, order_GT),
            permute(self.places_GT[..., None], low, order_GT)[..., 0],
        )

    def joined(self, right: Part) -> Part:
        """A copy of both, `right` being the slots that follow."""
        moved = self.positions_GT is not None or right.positions_GT is not None
        return Part(
            self.first,
            torch.cat([self.keys_GTD, right.keys_GTD], dim=1),
            torch.cat([self.values_GTD, right.values_GTD], dim=1),
            torch.cat([self.places_GT, right.places_GT], dim=1) if moved else None,
        )


def permute(tensor_GTD: Tensor, first: int, order_GT: Tensor) -> Tensor:
    """A copy whose rows [first, first + T) of head g come in the order order_GT[g]."""
    stop = first + order_GT.shape[1]
    result_GTD = torch.empty_like(tensor_GTD, memory_format=torch.contiguous_format)
    result_GTD[:, :first] = tensor_GTD[:, :first]
    result_GTD[:, stop:] = tensor_GTD[:, stop:]
    for source_TD, order_T, result_TD in zip(tensor_GTD, order_GT, result_GTD, strict=True):
        torch.index_select(source_TD[first:stop], 0, order_T, out=result_TD[first:stop])
    return result_GTD
