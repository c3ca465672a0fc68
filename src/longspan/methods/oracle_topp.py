"""The smallest set of tokens that holds a given share of every query head's attention."""

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
class OracleTopP(Method):
    """Scores every key exactly and attends the fewest that hold `coverage` of the softmax mass.

    sink_tokens, local_tokens: always attended, their mass counts. coverage: share of the whole
    mass, per query head. placement: where keys and values live, `cpu` or `gpu`.
    """

    name: ClassVar[str] = "oracle_topp"

    sink_tokens: Tokens = 4
    local_tokens: Tokens = 64
    coverage: Fraction = 0.95
    placement: OnePlace = "gpu"

    def layer(self, geometry: LayerGeometry) -> TopPState:
        """See Method."""
        return TopPState(self, geometry)


class TopPState(ChosenState):
    """One layer of one sequence."""

    def __init__(self, method: OracleTopP, geometry: LayerGeometry) -> None:
        super().__init__(
            geometry, method.placement, sink=method.sink_tokens, local=method.local_tokens
        )
        self.coverage = method.coverage

    def choose(self, q_HD: Tensor, start: int, stop: int) -> Runs:
        """The largest scores, until no more than 1 - coverage of the mass is left."""
        score_HT, slot_HT = self.exact_scores(q_HD, start, stop).sort(dim=-1, descending=True)
        total_H = self.exact_scores(q_HD, 0, len(self.store)).logsumexp(-1)
        share_HT = torch.exp(score_HT - total_H[:, None])
        # the mass still open at each token, summed from the far end so that little counts
        left_HT = share_HT.flip(-1).cumsum(-1).flip(-1)
        count_H = (left_HT > 1 - self.coverage).sum(-1)
        slot_HK = slot_HT[:, : max(1, int(count_H.max()))] + start
        return Runs(slot_HK.int(), None, count_H.int())
