"""Which blocks of a store a cache holds, and which it lets in; see README.md for the maths."""

from __future__ import annotations

from longspan_kernels.block_cache.cache import BlockCache, Found, Policy
from longspan_kernels.block_cache.replay import Replay, optimum, simulate

__all__ = ["BlockCache", "Found", "Policy", "Replay", "optimum", "simulate"]
