"""Hash tables of random hyperplanes over the keys of one layer: which keys lie on the query's side
of all planes of a table, in at least LEAST of the tables.

Here L counts tables, K the hyperplanes of a table, whose sides are the bits of a code, and C = 2**K
codes. Charikar, "Similarity Estimation Techniques from Rounding Algorithms", STOC 2002.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import pi
from typing import TYPE_CHECKING

import torch
from torch.nn.utils.rnn import pad_sequence

from longspan.types import Runs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

LEAST = 2
"""Tables in which a key must share the query's code."""

BLOCK = 2**24
"""Products held at once."""

MOST_BITS = 16
"""Every table knows where the keys of each code begin."""


@dataclass(frozen=True, slots=True)
class Collisions:
    """What a search found, and what it read."""

    found: Runs
    """Ascending slots, a row a query head."""
    bytes: float
    """Planes, bounds and entries, all heads together."""


def hyperplanes(tables: int, bits: int, size: int, seed: int) -> Tensor:
    """float32 [L, D, K]: normals of random planes through the origin."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(tables, size, bits, generator=generator)


def probability(cosine: Tensor, bits: int, tables: int) -> Tensor:
    """How likely two vectors of that cosine are to share their codes in LEAST tables or more.

    One plane leaves them on one side with probability p = 1 - angle / pi, a table with p**K.
    """
    same = (1 - cosine.clamp(-1, 1).acos() / pi) ** bits
    never = (1 - same) ** tables
    once = tables * same * (1 - same) ** (tables - 1)
    return (1 - never - once).clamp(0, 1)


def codes(vector_ND: Tensor, planes_LDK: Tensor) -> Tensor:
    """int32 [L, N]: bit k says on which side of plane k of a table a vector lies."""
    weight_K = 2.0 ** torch.arange(planes_LDK.shape[2], device=vector_ND.device)
    side_LNK = (vector_ND @ planes_LDK > 0).float()
    return (side_LNK @ weight_K).int()


class HashTables:
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
        sorted_Gs = [
            self._sorted(keys_TD.float() - mean_D)
            for keys_TD, mean_D in zip(keys_GTD, self.mean_GD, strict=True)
        ]
        self._token_GLT = torch.stack([token_LT for token_LT, _ in sorted_Gs])
        self._bound_GLC = torch.stack([bound_LC for _, bound_LC in sorted_Gs])

    @property
    def tokens(self) -> int:
        """How many tokens are in the tables."""
        return self._token_GLT.shape[2]

    @property
    def nbytes(self) -> int:
        """Memory of the tables and planes."""
        held = (self.planes_LDK, self.mean_GD, self._token_GLT, self._bound_GLC)
        return sum(tensor.nbytes for tensor in held)

    def search(self, q_HD: Tensor) -> Collisions:
        """The tokens that share the code of a query head in LEAST tables or more, and the slots
        where they are.
        """
        heads = q_HD.shape[0] // self._token_GLT.shape[0]
        code_HL = codes(q_HD.float(), self.planes_LDK).T.long()
        token_Hs, read = [], 0
        for head, code_L in enumerate(code_HL):
            token_N = self._bucketed(head // heads, code_L)
            read += len(token_N)
            times_T = torch.bincount(token_N, minlength=self.tokens)
            token_Hs.append((times_T >= LEAST).nonzero()[:, 0].int())
        slot_HK = pad_sequence(token_Hs, batch_first=True) + self.first_slot
        counts = [len(token_K) for token_K in token_Hs]
        if not any(counts):
            slot_HK = slot_HK.new_zeros(len(counts), 1)
        count_H = torch.tensor(counts, dtype=torch.int32, device=q_HD.device)
        entries = read + 2 * code_HL.numel()
        size = self._token_GLT.element_size()
        return Collisions(
            found=Runs(slot_HK, None, count_H),
            bytes=float(entries * size + self.planes_LDK.nbytes),
        )

    def _bucketed(self, group: int, code_L: Tensor) -> Tensor:
        """int32 [N]: the tokens of these codes, table after table."""
        table_L = torch.arange(len(code_L), device=code_L.device)
        begin_L, end_L = (self._bound_GLC[group, table_L, code_L + n].long() for n in (0, 1))
        size_L = end_L - begin_L
        # entry n of all lies as far behind its table's first as n behind the entries before them
        shift_L = table_L * self.tokens + begin_L - (size_L.cumsum(0) - size_L)
        shift_N = shift_L.repeat_interleave(size_L)
        place_N = torch.arange(len(shift_N), device=code_L.device) + shift_N
        return self._token_GLT[group].flatten()[place_N]

    def _sorted(self, key_TD: Tensor) -> tuple[Tensor, Tensor]:
        """int32 [L, T] tokens by code and [L, C + 1] where each code begins, of one KV head."""
        pairs = list(self._sorted_blocks(key_TD))
        return torch.cat([token for token, _ in pairs]), torch.cat([bound for _, bound in pairs])

    def _sorted_blocks(self, key_TD: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        _, _, bits = self.planes_LDK.shape
        number_C = torch.arange(2**bits + 1, dtype=torch.int32, device=key_TD.device)
        tables = max(1, BLOCK // (len(key_TD) * bits))
        for planes_LDK in torch.split(self.planes_LDK, tables):
            code_LT, token_LT = codes(key_TD, planes_LDK).sort(dim=1, stable=True)
            every_LC = number_C.expand(len(code_LT), -1).contiguous()
            yield token_LT.int(), torch.searchsorted(code_LT, every_LC, out_int32=True)
