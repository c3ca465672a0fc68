"""The clusters of several wave indexes in buffers of fixed shape, searched together."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

from longspan.indexes.wave_clustering import counts
from longspan.types import Estimate, Runs
from longspan_kernels.wave_decode.mass import promoted, spread_bias
from longspan_kernels.wave_search import wave_search

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from longspan.indexes.base import Budget
    from longspan.indexes.wave import WaveIndex
    from longspan.types import LayerGeometry

BUFFERED = ("centroids_GCD", "values_GCD", "spread_GC", "start_GC", "size_GC")


class Means(NamedTuple):
    """Of the clusters of all rows' KV heads."""

    centroids_NCD: Tensor
    values_NCD: Tensor
    size_NC: Tensor
    """int32."""


class StaticClusters:
    """Room for the clusters that each row's index has when it holds `tokens` tokens. Clusters that
    are not there yet have no members, so no search finds them.

    N: the KV heads of all rows.
    """

    def __init__(
        self,
        indexes: Sequence[WaveIndex],
        most: Budget,
        tokens: int,
        stretch: int,
        geometry: LayerGeometry,
    ) -> None:
        """`most`: the budget of a search over all `tokens`. `stretch`: tokens that an index takes
        in at a time.
        """
        options = indexes[0].options
        more = [tokens - index.tokens for index in indexes]
        held = [index.clusters if index.tokens else 0 for index in indexes]
        # each stretch rounds by itself, so that their clusters may be far from tokens / size
        gain = counts(stretch, options).total
        count = max(a + (b // stretch + 1) * gain for a, b in zip(held, more, strict=True))
        self.indexes, self.options = indexes, options
        self.groups, rows, device = geometry.kv_heads, len(indexes), geometry.device
        # shares of the clusters, which stay shares however many there are
        self.retrieve, self.estimate = (
            min(count, -(-each * count // tokens) + 2)
            for each in (most.retrieve_tokens, most.estimate_tokens)
        )
        self.retrieve = min(count, max(self.retrieve, options.min_clusters))
        self.estimate = self.estimate if most.estimate_tokens else 0
        count = max(
            count, self.retrieve + self.estimate
        )  # the slack of one is not the other's loss
        self.tolerance = options.tolerance if self.estimate else 0.0
        self.width = self.retrieve + (self.estimate if self.tolerance else 0)
        """Clusters that a KV head may read."""
        shape, dtype = (rows, self.groups, count), torch.float32
        if options.summaries == "model":
            dtype = geometry.dtype
        means = torch.zeros(2, *shape, geometry.head_size, dtype=dtype, device=device)
        whole = torch.zeros(2, *shape, dtype=torch.int32, device=device)
        tensors = (*means, torch.zeros(shape, device=device), *whole)
        self._buffers = dict(zip(BUFFERED, tensors, strict=True))
        self._bias_NC = torch.zeros(rows * self.groups, count, device=device)
        self._counts_2N = torch.zeros(2, rows * self.groups, dtype=torch.int32, device=device)
        self._none_N = torch.zeros_like(self._counts_2N[0])

    def refresh(self, row: int, budget: Budget) -> None:
        """Take over what the row's index holds; the index then lies in these buffers."""
        index = self.indexes[row]
        views = {}
        for name, buffer in self._buffers.items():
            views[name] = buffer[row, :, : index.clusters]
            views[name].copy_(getattr(index.meta, name))
        index.lie_in(**views)
        heads = slice(row * self.groups, (row + 1) * self.groups)
        self._bias_NC[heads, : index.clusters] = index.meta.log_size_GC
        self._counts_2N[0, heads], self._counts_2N[1, heads] = index.ranked(budget)

    @property
    def means(self) -> Means:
        """Of all clusters, those not there yet included."""
        names = "centroids_GCD", "values_GCD", "size_GC"
        return Means(*(self._buffers[name].flatten(0, 1) for name in names))

    @property
    def none(self) -> tuple[Tensor, ...]:
        """As `search` gives it, of a step that reads no cluster."""
        start, size = (self._buffers[name].flatten(0, 1) for name in ("start_GC", "size_GC"))
        return self._none_N[:, None], self._none_N, start, size

    def search(
        self, q_XD: Tensor, scale: float, exact_lse_X: Tensor | None = None
    ) -> tuple[tuple[Tensor, ...], Estimate | None]:
        """What the query heads of all rows read: ids [N, K] of clusters, of which the first count_N
        hold, with start_NC and size_NC of all; and those that stand for their tokens, if any do.
        `exact_lse_X`: of what they attend besides, which a tolerance is of. Waits for nothing.
        """
        centroids, values, spread, start, size = (x.flatten(0, 1) for x in self._buffers.values())
        bias_NC = mass_NC = self._bias_NC
        if self.options.by_spread:
            mass_NC = spread_bias(bias_NC, spread, q_XD, scale)
        hits = wave_search(
            q_XD,
            centroids,
            size,
            retrieve=self.retrieve,
            estimate=self.estimate,
            scale=scale,
            softcap=self.options.softcap,
            vote="max" if self.options.vote == "max" else "sum",
            bias_GC={"sized": bias_NC, "mass": mass_NC}.get(self.options.vote),
            want_scores=self.tolerance > 0,
            most_2G=self._counts_2N,
        )
        assert hits.count_2G is not None
        read = Runs(hits.retrieve_GK, None, hits.count_2G[0])
        ids = Runs(hits.estimate_GK, None, hits.count_2G[1])
        if self.tolerance:
            assert hits.score_HC is not None
            weights = hits.score_HC, mass_NC, bias_NC, exact_lse_X
            read, ids = promoted(read, ids, *weights, self.tolerance)
        clusters = read.start_NK, read.count_N, start, size
        if not self.estimate:
            return clusters, None
        bias_NC = mass_NC if self.options.gaussian else bias_NC
        return clusters, Estimate(centroids, values, bias_NC, ids, size)

    def of(
        self, row: int, runs: Runs, zones: int, estimate: Estimate | None
    ) -> tuple[Runs, Estimate | None]:
        """A row's share of a search; the first `zones` runs are none of it."""
        heads = slice(row * self.groups, (row + 1) * self.groups)
        return runs.of(heads, zones), None if estimate is None else estimate.of(heads)
