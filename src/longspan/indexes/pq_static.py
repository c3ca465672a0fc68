"""The codes of several product-quantised indexes in buffers of fixed shape, searched together."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from longspan.types import StepBytes
from longspan_kernels.product_codes import step_tokens
from longspan_kernels.types import Coded, CodedRows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from longspan.indexes.base import Budget
    from longspan.indexes.pq import PQIndex
    from longspan.types import LayerGeometry

ALIGNED = 16
"""Codes of a KV head begin at multiples of so many bytes."""


class StaticProducts:
    """Room for the codes that each row's index has when it holds `tokens` tokens, and for as many
    codebooks as any has now: generated tokens bring none but the first of an empty index.

    N: the rows of what is read, `sets` of each index.
    """

    run_tokens = 1

    def __init__(
        self, indexes: Sequence[PQIndex], most: Budget, tokens: int, geometry: LayerGeometry
    ) -> None:
        """`most`: the budget of a search over all `tokens`."""
        self.indexes, self.share, self.most = indexes, indexes[0].share, most.retrieve_tokens
        rows, groups, device = len(indexes), geometry.kv_heads, geometry.device
        self.sets = sets_of(indexes[0], geometry)
        books = max(1, *(len(index.stretches) for index in indexes))
        parts, room = indexes[0].parts, -(-tokens // ALIGNED) * ALIGNED
        shape = rows, groups, parts, books, 2 ** indexes[0].bits, geometry.head_size // parts
        self.centroids_BGPSCE = torch.zeros(shape, device=device)
        self.code_BGPT = torch.zeros(*shape[:3], room, dtype=torch.uint8, device=device)
        self.stop_BS = torch.zeros(rows, books, dtype=torch.int32, device=device)
        self.first_N = torch.zeros(rows * self.sets, dtype=torch.int32, device=device)
        self.count_N = torch.zeros_like(self.first_N)
        self._held = [0] * rows

    @staticmethod
    def bytes_of(index: PQIndex, rows: int, tokens: int, geometry: LayerGeometry) -> StepBytes:
        """Of so many rows with a codebook each; a search weighs all tokens for each set."""
        size, room = geometry.head_size, -(-tokens // ALIGNED) * ALIGNED
        kept = geometry.kv_heads * (index.parts * room + 4 * 2**index.bits * size)
        return StepBytes(rows * kept, rows * 4 * room * sets_of(index, geometry))

    def refresh(self, row: int, budget: Budget) -> None:
        """Take over what the row's index holds; the index then lies in these buffers."""
        index, held = self.indexes[row], self._held[row]
        here, first = [], 0
        for book, (centroids_GPCE, code_GPT) in enumerate(index.stretches):
            known, stop = max(0, held - first), first + code_GPT.shape[2]
            mine = Coded(
                self.centroids_BGPSCE[row, :, :, book, : centroids_GPCE.shape[2]],
                self.code_BGPT[row, :, :, first:stop],
            )
            if not held:
                mine.centroids_GPCE.copy_(centroids_GPCE)
            mine.code_GPT[..., known:] = code_GPT[..., known:]
            self.stop_BS[row, book:] = first = stop
            here.append(mine)
        index.lie_in(here)
        mine_N = self.rows_of(row)
        self.first_N[mine_N], self.count_N[mine_N] = index.first_slot, index.wanted(budget)
        self._held[row] = index.tokens

    def search(self, q_XD: Tensor, scale: float) -> tuple[Tensor, ...]:
        """What the query heads of all rows read: slots [N, K], of which the first count_N hold.
        Waits for nothing.
        """
        coded = CodedRows(
            self.centroids_BGPSCE.flatten(3, 4).flatten(0, 1),
            self.code_BGPT.flatten(0, 1),
            self.stop_BS,
        )
        token_NK = step_tokens(q_XD, coded, self.most, scale=scale, share=self.share)
        return token_NK + self.first_N[:, None], self.count_N

    def rows_of(self, row: int) -> slice:
        """Of what is read, those of an index."""
        return slice(row * self.sets, (row + 1) * self.sets)

    def cost(self, row: int) -> tuple[float, float]:
        """Distances that a search of an index takes, and bytes that it reads."""
        return self.indexes[row].distances, float(self.indexes[row].nbytes)


def sets_of(index: PQIndex, geometry: LayerGeometry) -> int:
    """Of tokens that a step reads of a row."""
    return geometry.query_heads if index.share == "query_head" else geometry.kv_heads
