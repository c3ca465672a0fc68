"""The exact best tokens of every query head: what retrieval of a fixed size can reach at most."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch

from longspan.methods.base import Method
from longspan.methods.chosen import ChosenState
from longspan.options import Fraction, Tokens, settings
from longspan.placement.base import OnePlace
from longspan.types import Runs

if TYPE_CHECKING:
    from torch import Tensor

    from longspan.types import LayerGeometry


@settings
class OracleTopK(Method):
    """Scores every key exactly and attends the best; nothing stands for the rest.

    sink_tokens, local_tokens: always attended. budget: share of the tokens between them that each
    query head attends, at least one. placement: where keys and values live, `cpu` or `gpu`.
    """

    name: ClassVar[str] = "oracle_topk"

    sink_tokens: Tokens = 4
    local_tokens: Tokens = 64
    budget: Fraction = 0.018
    placement: OnePlace = "gpu"

    def layer(self, geometry: LayerGeometry) -> TopKState:
        """See Method."""
        return TopKState(self, geometry)


class TopKState(ChosenState):
    """One layer of one sequence."""

    def __init__(self, method: OracleTopK, geometry: LayerGeometry) -> None:
        super().__init__(
            geometry, method.placement, sink=method.sink_tokens, local=method.local_tokens
        )
        self.budget = method.budget

    def choose(self, q_HD: Tensor, start: int, stop: int) -> Runs:
        """The largest scores."""
        wanted = max(1, round(self.budget * (stop - start)))
        slot_HK = self.exact_scores(q_HD, start, stop).topk(wanted).indices + start
        return Runs(slot_HK.int(), None, torch.full_like(slot_HK[:, 0], wanted).int())
