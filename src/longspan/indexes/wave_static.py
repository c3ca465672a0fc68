"""The clusters of several wave indexes in buffers of fixed shape, searched together."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

from longspan.indexes.wave_clustering import counts
from longspan.types import Estimate, Runs, StepBytes
from longspan_kernels.wave_decode.mass import promoted, spread_bias
from longspan_kernels.wave_search import wave_search

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from longspan.indexes.base import Budget
    from longspan.indexes.wave import WaveIndex
    from longspan.indexes.wave_options import WaveOptions
    from longspan.types import LayerGeometry

BUFFERED = ("centroids_GCD", "values_GCD", "spread_GC", "start_GC", "size_GC")


class Means(NamedTuple):
    """Of the clusters of all rows' KV heads."""

    centroids_NCD: Tensor
    values_NCD: Tensor
    size_NC: Tensor
    """int32."""


class Most(NamedTuple):
    """Clusters of a KV head: those that there is room for, and those that a search finds."""

    clusters: int
    retrieve: int
    estimate: int
    tolerance: float

    @property
    def width(self) -> int:
        """Those that it may read."""
        return self.retrieve + (self.estimate if self.tolerance else 0)


def most_of(
    options: WaveOptions, most: Budget, tokens: int, held: Sequence[tuple[int, int]], stretch: int
) -> Most:
    """With `tokens` in each of the rows' indexes, which hold so many clusters and tokens now."""
    # each stretch rounds by itself, so that their clusters may be far from tokens / size
    gain = counts(stretch, options).total
    count = max(clusters + ((tokens - each) // stretch + 1) * gain for clusters, each in held)
    # shares of the clusters, which stay shares however many there are
    retrieve, estimate = (
        min(count, -(-each * count // tokens) + 2)
        for each in (most.retrieve_tokens, most.estimate_tokens)
    )
    retrieve = min(count, max(retrieve, options.min_clusters))
    estimate = estimate if most.estimate_tokens else 0
    # the slack of one is not the other's loss
    count = max(count, retrieve + estimate)
    return Most(count, retrieve, estimate, options.tolerance if estimate else 0.0)


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
        held = [(index.clusters if index.tokens else 0, index.tokens) for index in indexes]
        sizes = most_of(options, most, tokens, held, stretch)
        count, self.retrieve, self.estimate, self.tolerance = sizes
        self.width = sizes.width
        """Clusters that a KV head may read."""
        self.indexes, self.options = indexes, options
        self.groups, rows, device = geometry.kv_heads, len(indexes), geometry.device
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

    @staticmethod
    def bytes_of(
        options: WaveOptions, sizes: Most, rows: int, geometry: LayerGeometry
    ) -> StepBytes:
        """Of so many rows; a search scores all clusters for every query head. What they weigh at a
        step is kept with those that stand for their tokens.
        """
        item = geometry.dtype.itemsize if options.summaries == "model" else 4
        weighed, groups = 4 * options.by_spread, rows * geometry.kv_heads
        a_cluster = 2 * geometry.head_size * item + 16
        kept = sizes.clusters * a_cluster
        if sizes.estimate:
            kept += sizes.clusters * weighed * options.gaussian + 4 * sizes.estimate
        scored = rows * geometry.query_heads * 4 * sizes.clusters
        return StepBytes(groups * kept, scored + groups * sizes.clusters * (4 + weighed))

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
