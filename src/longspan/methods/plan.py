"""How much of what a retrieval method reads: settings, put in the terms of its states."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from longspan.placement.base import Place, PlacementName


@dataclass(frozen=True, slots=True)
class Amount:
    """How many tokens to read: a share of the indexed ones, or a count."""

    share: float = 0.0
    tokens: int = 0

    def of(self, indexed: int) -> int:
        """The count out of `indexed` tokens: at least one, unless nothing is asked for."""
        least = 1 if self.share or self.tokens else 0
        return min(max(round(self.share * indexed) + self.tokens, least), indexed)


def share_of_layer(budgets: Sequence[float], layer: int) -> float:
    """The budget of one of the model's layers. Raises ValueError where the list is too short."""
    if layer >= len(budgets):
        raise ValueError(
            f"method.layer_budgets has {len(budgets)} entries; it should have one for each of the "
            f"model's layers, which has a layer {layer}"
        )
    return budgets[layer]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a method's settings say about the composition."""

    sink_tokens: int
    local_tokens: int
    update_tokens: int
    """The index takes in generated tokens in stretches of this many; a shorter context has none."""
    retrieve: Amount
    estimate: Amount = Amount()
    effort: int | None = None
    placement: Place | PlacementName = "cpu"
    query_window: int = 512
    query_cap: int = 2048
    """Prefill queries kept for an index that wants them: the last ones, and a sample."""
