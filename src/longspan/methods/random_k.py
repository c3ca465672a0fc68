"""Tokens drawn at random: what a method gets for its budget alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

import torch
from pydantic import Field

from longspan.methods.base import Method
from longspan.methods.chosen import ChosenState
from longspan.options import Fraction, Tokens, settings
from longspan.placement.base import OnePlace
from longspan.types import Runs

if TYPE_CHECKING:
    from torch import Tensor

    from longspan.types import LayerGeometry


@settings
class RandomK(Method):
    """Attends a fresh uniform sample of the context at every step, one set a KV head.

    sink_tokens, local_tokens: always attended. budget: share of the tokens between them that is
    drawn, at least one. seed: of the draws. placement: where keys and values live.
    """

    name: ClassVar[str] = "random_k"

    sink_tokens: Tokens = 4
    local_tokens: Tokens = 64
    budget: Fraction = 0.018
    seed: Annotated[int, Field(ge=0)] = 0
    placement: OnePlace = "gpu"

    def layer(self, geometry: LayerGeometry) -> RandomState:
        """See Method."""
        return RandomState(self, geometry)


class RandomState(ChosenState):
    """One layer of one sequence."""

    def __init__(self, method: RandomK, geometry: LayerGeometry) -> None:
        super().__init__(
            geometry, method.placement, sink=method.sink_tokens, local=method.local_tokens
        )
        self.method = method

    def choose(self, q_HD: Tensor, start: int, stop: int) -> Runs:
        """A draw that depends on seed, layer and the number of stored tokens only."""
        generator = torch.Generator()
        draw = hash((self.method.seed, self.geometry.layer, len(self.store)))
        generator.manual_seed(draw & 0xFFFFFFFF)
        wanted = max(1, round(self.method.budget * (stop - start)))
        ticket_GT = torch.rand(self.geometry.kv_heads, stop - start, generator=generator)
        slot_GK = ticket_GT.topk(wanted).indices.to(q_HD.device) + start
        return Runs(slot_GK.int(), None, torch.full_like(slot_GK[:, 0], wanted).int())
