"""Which blocks of a store a cache holds, and which it lets in; see README.md for the maths."""

from __future__ import annotations

from longspan_kernels.block_cache.cache import BlockCache, Found, Policy
from longspan_kernels.block_cache.replay import Replay, optimum, simulate
from longspan_kernels.block_cache.steps import CacheSteps, StepCaches, StepCount, packed

__all__ = [
    "BlockCache",
    "CacheSteps",
    "Found",
    "Policy",
    "Replay",
    "StepCaches",
    "StepCount",
    "optimum",
    "packed",
    "simulate",
]
