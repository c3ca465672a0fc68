"""RetroInfer as its paper has it, to compare with."""

from __future__ import annotations

from typing import ClassVar, Literal

from longspan.indexes.wave_options import Vote
from longspan.methods.retroinfer import RetroInfer
from longspan.options import Count, Fraction, Share, settings
from longspan.placement.base import CachePolicy


@settings
class RetroInferPaper(RetroInfer):
    """RetroInfer with the paper's choices where ours differ (PVLDB 19(5), arXiv 2505.02922): evenly
    spaced seeds, no outliers, clusters ranked by their centroids alone and estimated by
    their sizes, none read beyond the budget, an LRU cache.
    """

    name: ClassVar[str] = "retroinfer_paper"

    retrieval_budget: Fraction = 0.018
    min_clusters: Count = 1
    tolerance: Share = 0.0
    outlier_budget: Share = 0.0
    seeding: Literal["even", "mixed", "farthest"] = "even"
    vote: Vote = "sum"
    estimation: Literal["clusters", "gaussian", "none"] = "clusters"
    cache_policy: CachePolicy = "lru"
