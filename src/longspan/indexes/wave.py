"""The wave index: clusters of keys; the best are read, the next best summarised.

RetroInfer (PVLDB 19(5), arXiv 2505.02922), sections 4.1-4.3. Beyond the paper, as options: other
votes, estimation with the spread of a cluster, the tail, reading what would be estimated badly.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import torch

from longspan.indexes import wave_meta
from longspan.indexes.base import KeyIndex, SearchResult
from longspan.indexes.wave_clustering import clustered
from longspan.indexes.wave_mass import gaussian_bias, marked, tail
from longspan.indexes.wave_options import WaveOptions
from longspan.indexes.wave_rank import rank
from longspan.types import Estimate, Runs
from longspan_kernels.wave_decode.mass import log_masses, promoted

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from longspan.indexes.base import Budget, Segment
    from longspan.indexes.wave_groups import Groups
    from longspan.indexes.wave_meta import Meta


class WaveIndex(KeyIndex):
    """Clusters of one layer of one sequence; grows by stretches, each clustered by itself."""

    def __init__(
        self,
        options: WaveOptions,
        meta: Meta | None = None,
        tokens: int = 0,
        groups: Groups | None = None,
    ) -> None:
        self.options = options
        self._meta, self._tokens = meta, tokens
        self.groups = groups
        """The coarse level, where `clusters_per_group` asks for one."""

    @property
    def wants_queries(self) -> bool:
        """Keys alone are clustered."""
        return False

    def build(self, segment: Segment) -> Tensor:
        """Cluster a stretch of the prompt in segments of about `segment_tokens`."""
        meta, groups, order_GT = clustered(segment, self.options)
        if groups is not None:
            before = 0 if self._meta is None else self.clusters
            self.groups = groups if self.groups is None else self.groups.extended(groups, before)
        self._meta = meta if self._meta is None else self._meta.extended(meta)
        self._tokens += segment.keys_GTD.shape[1]
        return order_GT

    def append(self, segment: Segment) -> Tensor:
        """As `build`: old clusters never change."""
        return self.build(segment)

    def search(self, q_HD: Tensor, budget: Budget, scale: float) -> SearchResult:
        """Budgets become shares of the clusters."""
        meta, options = self.meta, self.options
        retrieve, estimate = self.ranked(budget)
        mass_bias_GC = meta.log_size_GC
        if options.by_spread:
            mass_bias_GC = gaussian_bias(meta, q_HD, scale)
        most = retrieve, estimate
        hits, products = rank(meta, self.groups, options, q_HD, *most, budget, scale, mass_bias_GC)
        read = Runs(hits.retrieve_GK, None, hits.live_G.clamp(max=retrieve))
        rest = Runs(hits.estimate_GK, None, hits.live_G - read.count_N)
        bias_GC = mass_bias_GC if options.gaussian else meta.log_size_GC
        if options.tolerance:
            assert hits.score_HC is not None
            weights = hits.score_HC, mass_bias_GC, meta.log_size_GC, budget.exact_lse_H
            read, rest = promoted(read, rest, *weights, options.tolerance)
        result = SearchResult(
            retrieved=self._runs(read),
            estimated=self._estimate(rest, bias_GC),
            distances=products,
            bytes=self.bytes_read(products, rest.count_N),
        )
        if options.tail == "none":
            return result
        assert hits.score_HC is not None
        mass_GRC = log_masses(hits.score_HC, bias_GC)
        met_GC = marked(read, self.clusters) | marked(rest, self.clusters)
        return replace(result, tail=tail(meta, mass_GRC, met_GC))

    def ranked(self, budget: Budget) -> tuple[int, int]:
        """How many clusters a budget retrieves, and how many it estimates."""
        estimate = self._clusters(budget.estimate_tokens)
        retrieve = max(self.options.min_clusters, self._clusters(budget.retrieve_tokens))
        retrieve = min(retrieve, self.clusters)
        return retrieve, min(estimate, self.clusters - retrieve)

    def lie_in(self, **buffers: Tensor) -> None:
        """These hold the same numbers as those tensors of `meta`."""
        self._meta = replace(self.meta, **buffers)

    def fork(self) -> WaveIndex:
        """Clusters are never changed, so they are shared."""
        return WaveIndex(self.options, self._meta, self._tokens, self.groups)

    @property
    def meta(self) -> Meta:
        """The clusters. Raises ValueError while there are none."""
        if self._meta is None:
            raise ValueError("nothing is indexed; build a segment before searching or saving")
        return self._meta

    @property
    def clusters(self) -> int:
        """Clusters per KV head, empty ones included."""
        return self.meta.size_GC.shape[1]

    @property
    def tokens(self) -> int:
        """See KeyIndex."""
        return self._tokens

    @property
    def nbytes(self) -> int:
        """See KeyIndex."""
        parts = (part for part in (self._meta, self.groups) if part is not None)
        return sum(tensor.nbytes for part in parts for tensor in part.tensors.values())

    def save(self, folder: Path) -> None:
        """See KeyIndex."""
        facts = {"tokens": self._tokens, "options": asdict(self.options)}
        wave_meta.save(folder, self.meta, self.groups, facts)

    @classmethod
    def load(cls, folder: Path, device: torch.device | None = None) -> WaveIndex:
        """The index that `save` wrote. Raises ValueError naming a file that is not one."""
        meta, groups, facts = wave_meta.load(folder, device or torch.device("cpu"))
        try:
            return cls(WaveOptions(**facts["options"]), meta, facts["tokens"], groups)
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"{folder} holds a wave index of other settings ({error}): build the index again"
            ) from error

    def _clusters(self, tokens: int) -> int:
        return min(round(tokens / self._tokens * self.clusters), self.clusters)

    def _runs(self, ids: Runs) -> Runs:
        id_GK = ids.start_NK[:, : int(ids.count_N.max())].long()
        return Runs(
            self.meta.start_GC.gather(1, id_GK), self.meta.size_GC.gather(1, id_GK), ids.count_N
        )

    def _estimate(self, ids: Runs, bias_GC: Tensor) -> Estimate | None:
        width = int(ids.count_N.max())
        if not width:
            return None
        return self.estimate_of(Runs(ids.start_NK[:, :width], None, ids.count_N), bias_GC)

    def estimate_of(self, ids: Runs, bias_GC: Tensor) -> Estimate:
        """What stands for the clusters that `ids` names."""
        meta = self.meta
        return Estimate(meta.centroids_GCD, meta.values_GCD, bias_GC, ids, meta.size_GC)

    def bytes_read(
        self, products: float, estimate_G: Tensor, *, again: bool = True
    ) -> float | Tensor:
        """Of a search that scores so many centroids a KV head, and estimates so many clusters;
        `again`: reading their centroids a second time. A tensor where a GPU has counted them.
        """
        groups, _, width = self.meta.centroids_GCD.shape
        row = width * self.meta.centroids_GCD.itemsize
        estimated = estimate_G.sum() if estimate_G.is_cuda else int(estimate_G.sum())
        return products * groups * row + (1 + again) * row * estimated
