"""The wave index: clusters of keys; the best are read, the next best summarised.

RetroInfer (PVLDB 19(5), arXiv 2505.02922), sections 4.1-4.3. Beyond the paper, as options: other
votes, estimation with the spread of a cluster, the tail, retrieval by coverage.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING

import torch

from longspan.indexes import wave_meta
from longspan.indexes.base import KeyIndex, SearchResult
from longspan.indexes.wave_mass import covering, gaussian_bias, log_masses, tail, unmet
from longspan.indexes.wave_options import WaveOptions
from longspan.types import Estimate, Runs
from longspan_kernels.segmented_kmeans import segmented_kmeans
from longspan_kernels.wave_search import wave_search

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from longspan.indexes.base import Budget, Segment
    from longspan.indexes.wave_meta import Meta
    from longspan_kernels.types import WaveHits


class WaveIndex(KeyIndex):
    """Clusters of one layer of one sequence; grows by stretches, each clustered by itself."""

    def __init__(self, options: WaveOptions, meta: Meta | None = None, tokens: int = 0) -> None:
        self.options = options
        self._meta, self._tokens = meta, tokens

    @property
    def wants_queries(self) -> bool:
        """Keys alone are clustered."""
        return False

    def build(self, segment: Segment) -> Tensor:
        """Cluster a stretch of the prompt in segments of about `segment_tokens`."""
        tokens = segment.keys_GTD.shape[1]
        clusters = max(1, round(tokens / self.options.tokens_per_cluster))
        segments = min(clusters, max(1, round(tokens / self.options.segment_tokens)))
        found = segmented_kmeans(
            segment.keys_GTD,
            segment.values_GTD,
            clusters=clusters,
            segments=segments,
            iterations=self.options.kmeans_rounds,
            final=self.options.final_assignment,
        )
        in_model = self.options.summaries == "model"
        dtype = segment.keys_GTD.dtype if in_model else torch.float32
        meta = wave_meta.Meta.of(found, segment.first_slot, segments, dtype)
        self._meta = meta if self._meta is None else self._meta.extended(meta)
        self._tokens += tokens
        return found.order_GT

    def append(self, segment: Segment) -> Tensor:
        """As `build`: old clusters never change."""
        return self.build(segment)

    def search(self, q_HD: Tensor, budget: Budget, scale: float) -> SearchResult:
        """Budgets become shares of the clusters, at least one of which is ranked."""
        meta, options = self.meta, self.options
        retrieve = max(1, self._clusters(budget.retrieve_tokens))
        estimate = min(self._clusters(budget.estimate_tokens), self.clusters - retrieve)
        if options.coverage is not None:
            retrieve, estimate = self.clusters, 0
        hits = self._rank(q_HD, retrieve, estimate, budget, scale)
        ranked_GK = torch.cat([hits.retrieve_GK, hits.estimate_GK], dim=1)
        retrieve_G = hits.live_G.clamp(max=retrieve)
        bias_GC = meta.log_size_GC
        if options.gaussian:
            bias_GC = gaussian_bias(meta, q_HD, scale)
        if options.coverage is not None:
            # the best estimate there is, whatever the summaries use
            mass_GRC = log_masses(hits.score_HC, gaussian_bias(meta, q_HD, scale))
            retrieve_G = covering(mass_GRC, ranked_GK, budget.exact_lse_H, options.coverage)
            estimate = self._clusters(budget.estimate_tokens)
        estimate_G = (hits.live_G - retrieve_G).clamp(0, estimate)
        result = SearchResult(
            retrieved=self._runs(ranked_GK, retrieve_G),
            estimated=self._estimate(ranked_GK, retrieve_G, estimate_G, bias_GC),
            distances=float(self.clusters),
            bytes=float(self._bytes_read(estimate_G)),
        )
        if options.tail == "none":
            return result
        mass_GRC = log_masses(hits.score_HC, bias_GC)
        read_GC = first_marked(ranked_GK, retrieve_G + estimate_G, self.clusters)
        return replace(result, tail=tail(meta, mass_GRC, read_GC))

    def fork(self) -> WaveIndex:
        """Clusters are never changed, so they are shared."""
        return WaveIndex(self.options, self._meta, self._tokens)

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
        return 0 if self._meta is None else self._meta.nbytes

    def save(self, folder: Path) -> None:
        """See KeyIndex."""
        facts = {"tokens": self._tokens, "options": asdict(self.options)}
        wave_meta.save(folder, self.meta, facts)

    @classmethod
    def load(cls, folder: Path, device: torch.device | None = None) -> WaveIndex:
        """The index that `save` wrote. Raises ValueError naming a file that is not one."""
        meta, facts = wave_meta.load(folder, device or torch.device("cpu"))
        try:
            return cls(WaveOptions(**facts["options"]), meta, facts["tokens"])
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"{folder} holds a wave index of other settings ({error}): build the index again"
            ) from error

    def _clusters(self, tokens: int) -> int:
        return min(round(tokens / self._tokens * self.clusters), self.clusters)

    def _rank(
        self, q_HD: Tensor, retrieve: int, estimate: int, budget: Budget, scale: float
    ) -> WaveHits:
        meta, vote = self.meta, self.options.vote
        search = partial(
            wave_search,
            q_HD,
            meta.centroids_GCD,
            meta.size_GC,
            retrieve=retrieve,
            estimate=estimate,
            scale=scale,
            softcap=self.options.softcap,
            vote="max" if vote == "max" else "sum",
            bias_GC=meta.log_size_GC if vote == "sized" else None,
        )
        hits = search()
        if vote != "unmet":
            return hits
        mass_GRC = log_masses(hits.score_HC, meta.log_size_GC)
        return search(weight_H=unmet(mass_GRC, budget.exact_lse_H))

    def _runs(self, ranked_GK: Tensor, retrieve_G: Tensor) -> Runs:
        id_GK = ranked_GK[:, : int(retrieve_G.max())].long()
        return Runs(
            self.meta.start_GC.gather(1, id_GK), self.meta.size_GC.gather(1, id_GK), retrieve_G
        )

    def _estimate(
        self, ranked_GK: Tensor, retrieve_G: Tensor, estimate_G: Tensor, bias_GC: Tensor
    ) -> Estimate | None:
        width = int(estimate_G.max())
        if not width:
            return None
        rank_GE = retrieve_G[:, None] + torch.arange(width, device=retrieve_G.device)
        id_GE = ranked_GK.gather(1, rank_GE.clamp(max=ranked_GK.shape[1] - 1).long())
        meta = self.meta
        return Estimate(
            keys_GCD=meta.centroids_GCD,
            values_GCD=meta.values_GCD,
            bias_GC=bias_GC,
            ids=Runs(id_GE, None, estimate_G),
            tokens_GC=meta.size_GC,
        )

    def _bytes_read(self, estimate_G: Tensor) -> int:
        centroids_GCD = self.meta.centroids_GCD
        row = centroids_GCD.shape[2] * centroids_GCD.itemsize
        return centroids_GCD.nbytes + 2 * row * int(estimate_G.sum())


def first_marked(ranked_GK: Tensor, count_G: Tensor, clusters: int) -> Tensor:
    """bool [G, C]: the first count_G[g] clusters of each row."""
    first_GK = torch.arange(ranked_GK.shape[1], device=count_G.device) < count_G[:, None]
    marked_GC = torch.zeros(len(count_G), clusters, dtype=torch.bool, device=count_G.device)
    return marked_GC.scatter(1, ranked_GK.long(), first_GK)
