"""Settings of the wave index."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from longspan_kernels.segmented_kmeans.reference_seeds import Seeding
    from longspan_kernels.wave_decode.mass import Vote as MassVote

Vote = Literal["sum", "max", "sized", "mass", "unmet"]
"""How a group's query heads rank clusters: `sum` of their softmax shares over the centroids (the
paper), the largest share (`max`), the sum with each centroid weighing its size (`sized`) or what
its cluster's keys would as a Gaussian (`mass`), the sum with each head weighing the mass that its
steady zone leaves open (`unmet`)."""
Tail = Literal["none", "segment_mean"]


@dataclass(frozen=True, slots=True, kw_only=True)
class WaveOptions:
    """Settings of a wave index."""

    tokens_per_cluster: int = 16
    outlier_budget: float = 0.0
    """Share of the tokens that are clusters of their own, those farthest from their centroids."""
    segment_tokens: int = 8192
    kmeans_rounds: int = 10
    seeding: Seeding = "mixed"
    """What clusters begin with: evenly spaced keys, keys `farthest` from one another by angle, or
    half and half (`mixed`)."""
    final_assignment: Literal["segment", "global"] = "segment"
    clusters_per_group: int | None = None
    """Search groups of about so many clusters first, and only the clusters of the best groups;
    None: all clusters."""
    group_slack: float = 2.0
    """Groups are opened until they hold about this many times the clusters that are wanted."""
    summaries: Literal["model", "float32"] = "model"
    """How centroids and mean values are stored: as the keys are, or in float32."""
    vote: Vote = "mass"
    gaussian: bool = False
    """Estimate a cluster's mass as that of an isotropic Gaussian, not of a point."""
    min_clusters: int = 1
    """A search retrieves at least so many, whatever its budget."""
    tail: Tail = "none"
    """Whether clusters neither retrieved nor estimated count, with their segment's mean value."""
    tolerance: float = 0.0
    """Of the clusters to be estimated, retrieve those whose estimate is expected to err by at least
    this share of a head's attention; 0: none."""
    softcap: float | None = None

    def __post_init__(self) -> None:
        if self.outlier_budget and self.final_assignment == "global":
            raise ValueError(
                f"outlier_budget is {self.outlier_budget} with final_assignment=global; outliers"
                " are those of a segment, so it should be 0"
            )
        if self.clusters_per_group is None:
            return
        if self.tail != "none":
            raise ValueError(
                f"clusters_per_group is {self.clusters_per_group} with tail={self.tail}, which"
                " weighs all clusters, so it should be null"
            )

    @property
    def wants_scores(self) -> bool:
        """Whether the scores of all centroids are used beside their ranks."""
        return self.tail != "none" or self.tolerance > 0 or self.vote == "unmet"

    @property
    def by_spread(self) -> bool:
        """Whether what clusters weigh with their spread is used at all."""
        return self.gaussian or self.tolerance > 0 or self.vote == "mass"

    @property
    def fused_vote(self) -> MassVote:
        """As `wave_decode` takes it, where it is `plain`."""
        return self.vote if self.vote in ("max", "mass") else "sum"

    @property
    def plain(self) -> bool:
        """Whether all clusters are ranked by shares of a softmax, and no tail stands for those that
        are not read: what one native call does.
        """
        shares = self.vote in ("sum", "max", "mass") and self.clusters_per_group is None
        return shares and self.tail == "none"
