"""Settings of the wave index."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Vote = Literal["sum", "max", "sized", "unmet"]
"""How a group's query heads rank clusters: `sum` of their softmax shares over the centroids (the
paper), the largest share (`max`), the sum with each centroid weighing its size (`sized`), the sum
with each head weighing the mass that its steady zone leaves open (`unmet`)."""
Tail = Literal["none", "segment_mean"]


@dataclass(frozen=True, slots=True, kw_only=True)
class WaveOptions:
    """Settings of a wave index."""

    tokens_per_cluster: int = 16
    segment_tokens: int = 8192
    kmeans_rounds: int = 10
    final_assignment: Literal["segment", "global"] = "segment"
    summaries: Literal["model", "float32"] = "model"
    """How centroids and mean values are stored: as the keys are, or in float32."""
    vote: Vote = "sum"
    gaussian: bool = False
    """Estimate a cluster's mass as that of an isotropic Gaussian, not of a point."""
    tail: Tail = "none"
    """Whether clusters neither retrieved nor estimated count, with their segment's mean value."""
    coverage: float | None = None
    """Retrieve as many clusters as hold this share of every head's mass, not a fixed number."""
    softcap: float | None = None
