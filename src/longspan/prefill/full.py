"""Full prefill: every position attends everything before it."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from longspan.options import settings
from longspan.prefill.base import Prefill
from longspan_kernels.dense_prefill import dense_prefill
from longspan_kernels.merge import merge

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor

    from longspan.placement.part import Part
    from longspan.types import LayerGeometry, Partial


@settings
class FullPrefill(Prefill):
    """Exact attention, in parts that are merged."""

    name: ClassVar[str] = "full"

    def attend(
        self, geometry: LayerGeometry, q_HQD: Tensor, chunk: Part, past: Iterable[Part]
    ) -> Partial:
        """See Prefill. One part of the past at a time."""
        total = attend_part(geometry, q_HQD, chunk, causal=True)
        for part in past:
            total = merge([total, attend_part(geometry, q_HQD, part, causal=False)])
        return total


def attend_part(geometry: LayerGeometry, q_HQD: Tensor, part: Part, *, causal: bool) -> Partial:
    """Every entry of a part, or, `causal`, of the chunk itself."""
    return dense_prefill(
        q_HQD,
        part.keys_GTD,
        part.values_GTD,
        scale=geometry.scale,
        softcap=geometry.softcap,
        causal=causal,
    )
