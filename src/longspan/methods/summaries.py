"""Attention to what stands for many tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from longspan_kernels.sparse_decode import sparse_decode

if TYPE_CHECKING:
    from torch import Tensor

    from longspan.types import Estimate, LayerGeometry, Partial


def summarised(
    geometry: LayerGeometry, q_HD: Tensor, estimate: Estimate, *, stacked: bool = False
) -> Partial:
    """Attention to pseudo-tokens; `stacked`: parts still to be merged, over a first axis."""
    return sparse_decode(
        q_HD,
        estimate.keys_GCD,
        estimate.values_GCD,
        estimate.ids,
        scale=geometry.scale,
        softcap=geometry.softcap,
        bias_GT=estimate.bias_GC,
        stacked=stacked,
    )
