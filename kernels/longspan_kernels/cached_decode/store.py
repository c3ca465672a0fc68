"""Keys and values of several rows of a layer, some near, most at home in host memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from longspan_kernels.types import Stretch

NOWHERE = torch.iinfo(torch.int32).max
LAYER_BITS = 40
"""Of the name of a page, below the number of its layer."""


@dataclass(frozen=True, slots=True)
class PagePool:
    """Pages near the model, which the stores of several layers may share."""

    keys_VD: Tensor
    values_VD: Tensor
    owner_P: Tensor
    """int64: what is in a page, as `CachedStore` names it; -1: nothing."""
    page: int
    """Slots of one."""

    @classmethod
    def of(cls, pages: int, page: int, like: Tensor) -> PagePool:
        """So many pages of heads as those of `like` [..., D], with nothing in them."""
        keys_VD = like.new_zeros(pages * page, like.shape[-1])
        owner_P = torch.full((max(pages, 1),), -1, dtype=torch.int64, device=like.device)
        return cls(keys_VD, torch.zeros_like(keys_VD), owner_P, page)

    @property
    def nbytes(self) -> int:
        """Of all of it."""
        return self.keys_VD.nbytes + self.values_VD.nbytes + self.owner_P.nbytes


@dataclass(frozen=True, slots=True)
class CachedStore:
    """Slots of N heads, those of B rows, G each. The slots [gap_2N[0, n], gap_2N[1, n]) of head n
    are at home, in the parts of row n // G; the others are near, the gap left out.

    A page is `pool.page` slots of a run, counted from its beginning, or what is left of it.
    `row_of_NT`: where in the pool the page of head n that begins with slot t is cached, if
    `pool.owner_P` of that page says that it is this one, by the layer's number and n T + t: a page
    that another layer is given is taken from this one. What is cached never changes at home.
    """

    near_keys_NCD: Tensor
    near_values_NCD: Tensor
    gap_2N: Tensor
    """int32."""
    homes: Sequence[Sequence[Stretch]]
    """By row. On a GPU, page-locked; their tokens are adjacent."""
    address_2SN: Tensor
    """int64: of slot 0 of keys and values, if a part had one; where the tensors are CPU tensors,
    too."""
    first_SN: Tensor
    """int32: the first slot of a part, or NOWHERE."""
    pool: PagePool
    row_of_NT: Tensor
    """int32."""
    layer: int = 0

    @classmethod
    def of(
        cls,
        homes: Sequence[Sequence[Stretch]],
        near_keys_NCD: Tensor,
        near_values_NCD: Tensor,
        gap_2N: Tensor,
        pool: PagePool,
        layer: int = 0,
    ) -> CachedStore:
        """Nothing of it is in the pool yet. Raises ValueError where a part's tokens do not follow
        one another, or numbers are whole.
        """
        if not near_keys_NCD.is_floating_point():
            raise ValueError(f"keys are {near_keys_NCD.dtype}; right is a floating-point type")
        heads = len(near_keys_NCD)
        parts = max([1, *map(len, homes)])
        address_2SN = torch.zeros(2, parts, heads, dtype=torch.int64)
        first_SN = torch.full((parts, heads), NOWHERE, dtype=torch.int32)
        a_row, slots = heads // len(homes), 1
        for row, stretches in enumerate(homes):
            here = slice(row * a_row, (row + 1) * a_row)
            for number, part in enumerate(stretches):
                first_SN[number, here] = part.first
                slots = max(slots, part.first + part.keys_GTD.shape[1])
                for kind, rows_GTD in enumerate((part.keys_GTD, part.values_GTD)):
                    address_2SN[kind, number, here] = _addresses(rows_GTD, part.first)
        near = near_keys_NCD.device
        return cls(
            near_keys_NCD,
            near_values_NCD,
            gap_2N.contiguous(),
            homes,
            address_2SN.to(near),
            first_SN.to(near),
            pool,
            torch.full((heads, slots), -1, dtype=torch.int32, device=near),
            layer,
        )


def _addresses(rows_GTD: Tensor, first: int) -> Tensor:
    groups, _, size = rows_GTD.shape
    if rows_GTD.shape[1] > 1 and rows_GTD.stride()[1:] != (size, 1):
        raise ValueError(
            f"a part at home has strides {rows_GTD.stride()}; its tokens should be {size} apart"
        )
    item = rows_GTD.itemsize
    head_G = torch.arange(groups) * rows_GTD.stride(0) * item
    return rows_GTD.data_ptr() - first * size * item + head_G
