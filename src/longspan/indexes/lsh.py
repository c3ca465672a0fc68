"""Hash tables of random hyperplanes over the keys of one layer: which keys lie on the query's side
of all planes of a table, in at least two of the tables.

Here L counts tables, K the hyperplanes of a table, whose sides are the bits of a code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from longspan_kernels.hash_tables import codes, hash_build, hash_search

if TYPE_CHECKING:
    from torch import Tensor

    from longspan.types import Runs


ENTRY_BYTES = 4
"""Of a token or a bound in a table."""


@dataclass(frozen=True, slots=True)
class Collisions:
    """What a search found, and what it read."""

    found: Runs
    """Ascending slots, a row a query head."""
    entries: int | Tensor
    """Of the tables, all heads together; a tensor where a GPU counted them, for which nothing waits
    until somebody asks."""
    fixed_bytes: int
    """Planes and bounds."""

    @property
    def bytes(self) -> float | Tensor:
        """Planes, bounds and entries, as `entries` are counted."""
        return self.entries * ENTRY_BYTES + self.fixed_bytes


def hyperplanes(tables: int, bits: int, size: int, seed: int) -> Tensor:
    """float32 [L, D, K]: normals of random planes through the origin."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(tables, size, bits, generator=generator)


class HashIndex:
    """The tokens of each KV head sorted by their code, in every table. Immutable.

    Keys are hashed by what is left of them after the mean over the tokens of their head is taken
    off, queries as they are.
    """

    def __init__(self, keys_GTD: Tensor, planes_LDK: Tensor, first_slot: int) -> None:
        """Raises ValueError on NaN or infinity."""
        if not bool(keys_GTD.isfinite().all()):
            raise ValueError("keys holds NaN or infinity; every value must be finite")
        self.first_slot = first_slot
        self.planes_LDK = planes_LDK.to(keys_GTD.device)
        self.mean_GD = keys_GTD.mean(1, dtype=torch.float32)
        norm_Gs = [
            (keys_TD.float() - mean_D).norm(dim=-1)
            for keys_TD, mean_D in zip(keys_GTD, self.mean_GD, strict=True)
        ]
        self.norm_GT = torch.stack(norm_Gs)
        """float32: of what is hashed."""
        self._tables = hash_build(keys_GTD, self.mean_GD, self.planes_LDK)

    @property
    def tokens(self) -> int:
        """How many tokens are in the tables."""
        return self.norm_GT.shape[1]

    @property
    def slots(self) -> tuple[int, int]:
        """The first of them, and one past the last."""
        return self.first_slot, self.first_slot + self.tokens

    @property
    def nbytes(self) -> int:
        """Memory of the tables and planes."""
        held = (self.planes_LDK, self.mean_GD, self.norm_GT, *self._tables)
        return sum(tensor.nbytes for tensor in held)

    def search(self, q_HD: Tensor) -> Collisions:
        """The slots of the tokens that share the code of a query head in two tables or more."""
        return self.look_up(codes(q_HD, self.planes_LDK).T)

    def look_up(self, code_HL: Tensor, *, whole: bool = False) -> Collisions:
        """As `search`, of query heads with these codes. `whole`: rows of `found` have room for all
        tokens, and nothing waits.
        """
        found, read = hash_search(code_HL, self._tables, first=self.first_slot, whole=whole)
        fixed_bytes = 2 * code_HL.numel() * ENTRY_BYTES + self.planes_LDK.nbytes
        return Collisions(found, read, fixed_bytes)
