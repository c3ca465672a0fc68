"""A state over clusters whose decode step is one native call where it can be."""

from __future__ import annotations

from typing import TYPE_CHECKING

from longspan.methods.frame import Reading
from longspan.methods.retrieval import RetrievalState
from longspan.placement.memory import Memory
from longspan.types import Selection
from longspan_kernels.wave_decode import wave_decode

if TYPE_CHECKING:
    from torch import Tensor

    from longspan.indexes.wave import WaveIndex


class WaveStepState(RetrievalState):
    """As its base, which stays what serves everything that one call does not."""

    index: WaveIndex

    def read(self, q_HD: Tensor) -> Reading:
        """See StoredState."""
        if self.index.tokens and self.served():
            return self.fused(q_HD)
        return super().read(q_HD)

    def served(self) -> bool:
        """Whether the operation does all that is asked for, where keys and values are."""
        here = isinstance(self.placement, Memory) and self.placement.device.type == "cpu"
        return here and self.index.options.plain

    def fused(self, q_HD: Tensor) -> Reading:
        """A step in one call."""
        index, geometry = self.index, self.geometry
        start, stop = self.indexed
        ranges = self.zones(start, len(self.store) - stop)
        retrieve, estimate = index.ranked(self.budget())
        meta, options = index.meta, index.options
        step = wave_decode(
            q_HD,
            meta.centroids_GCD,
            meta.values_GCD,
            meta.start_GC,
            meta.size_GC,
            self.store.parts,
            indexed=(start, stop),
            steady=ranges,
            retrieve=retrieve,
            estimate=estimate,
            scale=geometry.scale,
            softcap=geometry.softcap,
            vote=options.fused_vote,
            spread_GC=meta.spread_GC,
            gaussian=options.gaussian,
            tolerance=options.tolerance,
        )
        bias_GC = meta.log_size_GC if step.bias_GC is None else step.bias_GC
        estimated = index.estimate_of(step.estimated, bias_GC) if estimate else None
        return Reading(
            [step.partial],
            Selection(ranges, step.retrieved, estimated),
            distances=float(index.clusters),
            index_bytes=index.bytes_read(index.clusters, step.estimated.count_N, again=False),
        )
