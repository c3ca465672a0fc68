"""Tokens and clusters of several indexes in buffers of fixed shape, found together."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch

from longspan.indexes.codes_static import StaticCodes
from longspan.indexes.hybrid import standing
from longspan.indexes.wave_static import Most, StaticClusters
from longspan.tensors import spread
from longspan.types import StepBytes
from longspan_kernels.token_union import token_union

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from longspan.indexes.base import Budget
    from longspan.indexes.hybrid import HybridIndex
    from longspan.indexes.key_codes import KeyCodesIndex
    from longspan.indexes.wave_options import WaveOptions
    from longspan.types import Estimate, LayerGeometry


class StaticHybrids:
    """Room for what each row's index, whose finder scans codes, has when it holds `tokens` tokens.

    N: the KV heads of all rows.
    """

    run_tokens = 1

    def __init__(
        self,
        indexes: Sequence[HybridIndex],
        most: Budget,
        tokens: int,
        stretch: int,
        geometry: LayerGeometry,
    ) -> None:
        """As StaticCodes."""
        self.indexes, self.softcap = indexes, geometry.softcap
        finders = [cast("KeyCodesIndex", index.finder) for index in indexes]
        waves = [index.wave for index in indexes]
        self.codes = StaticCodes(finders, most, tokens, stretch, geometry)
        self.clusters = StaticClusters(waves, most, tokens, stretch, geometry)
        self.most = self.codes.most * (geometry.query_heads // geometry.kv_heads)
        """Tokens that a KV head reads at once."""
        rows, groups, device = len(indexes), geometry.kv_heads, geometry.device
        self.groups = groups
        whole = torch.int32
        self.place_BGT = torch.zeros(rows, groups, tokens, dtype=whole, device=device)
        self.first_B = torch.zeros(rows, dtype=whole, device=device)
        self.most_2BG = torch.zeros(2, rows, groups, dtype=whole, device=device)
        self.all = most.estimate_tokens >= tokens
        """Whether clusters stand for everything that is not read."""
        self.estimate: Estimate | None = None
        """What stands for others, after a search; None: nothing does."""
        self._wanted = [0] * rows

    @staticmethod
    def bytes_of(
        codes: StepBytes,
        options: WaveOptions,
        sizes: Most,
        rows: int,
        tokens: int,
        geometry: LayerGeometry,
    ) -> StepBytes:
        """Of so many rows with such codes: a place a token, and the clusters, of which those that
        stand for tokens have their own number of these.
        """
        plain = StaticClusters.bytes_of(options, sizes._replace(estimate=0), rows, geometry)
        heads = rows * geometry.kv_heads
        stand = heads * (8 * sizes.clusters + 4 * sizes.estimate)
        kept = codes.kept + plain.kept + stand + 4 * heads * tokens
        return StepBytes(kept, max(codes.passing, plain.passing))

    def refresh(self, row: int, budget: Budget) -> None:
        """Take over what the row's index holds; it then lies in these buffers."""
        index = self.indexes[row]
        assert index.place_GT is not None
        self.codes.refresh(row, budget)
        self.clusters.refresh(row, budget)
        mine_GT = self.place_BGT[row, :, : index.tokens]
        mine_GT.copy_(index.place_GT)
        index.place_GT = mine_GT
        self._wanted[row] = index.wanted(budget)
        self.first_B[row], self.most_2BG[1, row] = index.first_slot, self._wanted[row]

    def search(self, q_XD: Tensor, scale: float) -> tuple[Tensor, ...]:
        """What the KV heads of all rows read: slots [N, K], of which the first count_N hold.
        `estimate` has what stands for others. Waits for nothing.
        """
        slot_XK, count_X = self.codes.search(q_XD, scale)
        first_X1, first_N1 = (
            spread(self.first_B, heads)[:, None]
            for heads in (len(q_XD) // len(self.indexes), self.groups)
        )
        means = self.clusters.means
        read = token_union(slot_XK - first_X1, count_X, self.place_BGT.flatten(0, 1), means.size_NC)
        wanted = means.size_NC.shape[1] if self.all else self.clusters.estimate
        if wanted:
            self.estimate = standing(
                q_XD,
                means.centroids_NCD,
                means.values_NCD,
                read.left_GC,
                wanted,
                scale=scale,
                softcap=self.softcap,
                most_2G=None if self.all else self.most_2BG.flatten(1),
            )
        return read.place_GK + first_N1, read.count_G

    def estimate_of(self, row: int) -> Estimate | None:
        """A row's share of what stands for others."""
        if self.estimate is None:
            return None
        return self.estimate.of(slice(row * self.groups, (row + 1) * self.groups))

    def cost(self, row: int) -> tuple[float, float]:
        """Distances that the last search of a row took, and bytes of its index that it read."""
        index, (distances, read) = self.indexes[row], self.codes.cost(row)
        estimate = self.estimate_of(row)
        summaries = 0 if estimate is None else int(estimate.ids.count_N.sum())
        ranked = index.ranking(self._wanted[row])
        return distances + ranked, read + summaries * index.summary_bytes
