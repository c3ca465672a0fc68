"""The pages of several paged indexes in buffers of fixed shape, searched together."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from longspan.types import StepBytes
from longspan_kernels.wave_search import wave_search

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from longspan.indexes.base import Budget
    from longspan.indexes.paged import PagedIndex
    from longspan.types import LayerGeometry


class StaticPages:
    """Room for the pages that each row's index has when it holds `tokens` tokens. Nobody reads
    pages that are not there yet.

    N: the rows of what is read, `sets` of each index.
    """

    def __init__(
        self, indexes: Sequence[PagedIndex], most: Budget, tokens: int, geometry: LayerGeometry
    ) -> None:
        """`most`: the budget of a search over all `tokens`."""
        self.indexes, self.first, device = indexes, indexes[0], geometry.device
        groups, rows = geometry.kv_heads, len(indexes)
        self.sets, width = widths(self.first, geometry)
        self.run_tokens = page = self.first.page_tokens
        shape = rows, groups, max(1, tokens // page)
        self.most = min(shape[2], max(each.most(most) for each in indexes))
        """Pages that are read at once."""
        self.rows_BGPW = torch.zeros(*shape, width, dtype=geometry.dtype, device=device)
        self.there_BGP = torch.zeros(shape, dtype=torch.int32, device=device)
        self.always_BGP = torch.zeros(shape, dtype=torch.bool, device=device)
        start_P = page * torch.arange(shape[2], dtype=torch.int32, device=device)
        self.start_NP = start_P.repeat(rows * self.sets, 1)
        self.size_NP = torch.full_like(self.start_NP, page)
        self.count_N = torch.zeros(rows * self.sets, dtype=torch.int32, device=device)
        self._held = [0] * rows

    @staticmethod
    def bytes_of(index: PagedIndex, rows: int, tokens: int, geometry: LayerGeometry) -> StepBytes:
        """Of so many rows; a search scores all pages for every query head."""
        pages, (sets, width) = max(1, tokens // index.page_tokens), widths(index, geometry)
        a_page = geometry.kv_heads * (width * geometry.dtype.itemsize + 5) + 8 * sets
        return StepBytes(
            rows * pages * a_page, rows * pages * 4 * (2 * geometry.query_heads + sets)
        )

    def refresh(self, row: int, budget: Budget) -> None:
        """Take over what the row's index holds; the index then lies in these buffers."""
        index, held = self.indexes[row], self._held[row]
        pages = index.pages
        self.rows_BGPW[row, :, held:pages] = index.rows_from(held)
        index.lie_in(self.rows_BGPW[row, :, :pages])
        self.there_BGP[row, :, :pages] = 1
        self.always_BGP[row, :, :pages] = index.always_GP
        mine = self.rows_of(row)
        if not held:
            self.start_NP[mine] += index.first_slot
        self.count_N[mine] = index.wanted(budget)
        self._held[row] = pages

    def search(self, q_XD: Tensor, scale: float) -> tuple[Tensor, ...]:
        """What the query heads of all rows read: ids [N, K] of pages, of which the first count_N
        hold, with start_NP and size_NP of all. Waits for nothing.
        """
        there_NP, (rows, _, pages) = self.there_BGP.flatten(0, 1), self.there_BGP.shape
        score_XP = wave_search(
            self.first.asked(q_XD),
            self.rows_BGPW.flatten(0, 1),
            there_NP,
            retrieve=1,
            estimate=0,
            scale=scale,
        ).score_HC
        assert score_XP is not None
        score_NRP = score_XP.view(len(there_NP), -1, pages)
        score_NRP = score_NRP.masked_fill(there_NP[:, None] == 0, float("-inf"))
        vote_NP = self.first.voted(score_NRP.view(rows, -1, pages), self.always_BGP).flatten(0, 1)
        id_NK = vote_NP.topk(self.most, dim=-1).indices.int()
        return id_NK, self.count_N, self.start_NP, self.size_NP

    def rows_of(self, row: int) -> slice:
        """Of what is read, those of an index."""
        return slice(row * self.sets, (row + 1) * self.sets)

    def cost(self, row: int) -> tuple[float, float]:
        """Distances that a search of an index takes, and bytes that it reads."""
        return self.indexes[row].distances, float(self.indexes[row].nbytes)


def widths(index: PagedIndex, geometry: LayerGeometry) -> tuple[int, int]:
    """Sets of pages that a step reads, and numbers that stand for a page."""
    one = torch.zeros(1, geometry.query_heads, 1)
    sets = index.voted(one, torch.zeros(1, geometry.kv_heads, 1, dtype=torch.bool)).shape[1]
    return sets, index.asked(torch.zeros(1, geometry.head_size)).shape[1]
