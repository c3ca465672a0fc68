"""H2O: the tokens that received most attention so far, and the last ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self, cast

import torch
from pydantic import Field

from longspan.methods.base import Method
from longspan.methods.frame import Reading, StoredState
from longspan.methods.plan import share_of_layer
from longspan.methods.received import Received, check_whole
from longspan.methods.static import StaticStored, elsewhere
from longspan.methods.static_heavy import StaticHeavy
from longspan.methods.static_received import received_bytes
from longspan.options import Fraction, Fractions, settings
from longspan.placement.base import OnePlace
from longspan.types import Runs, Selection, StepBytes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from longspan.methods.base import LayerState
    from longspan.types import LayerGeometry, Partial

LEAST = 2
"""Tokens that are always read: a heavy hitter and the last one."""


@settings
class H2O(Method):
    """Zhang et al., "H2O: Heavy-Hitter Oracle for Efficient Generative Inference of Large Language
    Models", NeurIPS 2023, arXiv 2306.14048.

    budget: share of the prompt that is read (the paper keeps 0.2), half of it heavy hitters, half
    last tokens; of 1, everything, and all that is generated too. kept_tokens: that many instead,
    also where the prompt is shorter and an answer outgrows them. layer_budgets: a share for each of
    the model's layers. score: what a token received from all queries so far, their `sum`, as in the
    paper, or their `mean`, which does not favour old tokens. placement: where keys and values live.

    As a step begins, one token leaves the last ones and competes with the heavy hitters; the one of
    the least score goes, so that a step reads as many as any other.

    Deviations: one set a KV head, by the mean of its query heads; tokens keep their true positions;
    and what is evicted stays in the store: unread by decode steps, so that it receives nothing from
    them, but seen by a further turn's prefill, after which the choice is made anew from everything.
    """

    name: ClassVar[str] = "h2o"

    budget: Fraction = 0.018
    kept_tokens: Annotated[int, Field(ge=LEAST)] | None = None
    layer_budgets: Fractions | None = None
    score: Literal["sum", "mean"] = "sum"
    placement: OnePlace = "gpu"

    def layer(self, geometry: LayerGeometry) -> H2OState:
        """See Method."""
        return H2OState(self, geometry)

    def static_obstacle(self, geometry: LayerGeometry) -> str | None:
        """See Method."""
        return elsewhere(self.placement, geometry)

    def static_layer(self, states: Sequence[LayerState], limits: Sequence[int]) -> StaticStored:
        """See Method."""
        # every row reads all that it holds, or none does
        evicts = cast("H2OState", states[0]).room is not None
        return StaticHeavy(states, limits) if evicts else StaticStored(states, limits)

    def static_bytes(
        self, geometry: LayerGeometry, held: Sequence[int], limits: Sequence[int]
    ) -> StepBytes:
        """See Method."""
        rooms = [self.kept(each, geometry.layer) for each in held]
        most = max((min(each, max(limits)) for each in rooms if each is not None), default=0)
        sums = received_bytes(geometry, len(held), max(limits), most)
        heavy = len(held) * geometry.kv_heads * 16 * (most // 2)
        return StepBytes(heavy + sums.kept, sums.passing) if most else StepBytes()

    def kept(self, prompt: int, layer: int) -> int | None:
        """Tokens that a step of this layer reads behind such a prompt; None: all there are."""
        if self.kept_tokens is not None:
            return self.kept_tokens
        share = self.budget
        if self.layer_budgets is not None:
            share = share_of_layer(self.layer_budgets, layer)
        return None if share == 1 else max(LEAST, round(share * prompt))


class H2OState(StoredState):
    """One layer of one sequence."""

    def __init__(self, method: H2O, geometry: LayerGeometry) -> None:
        super().__init__(geometry, method.placement)
        self.method = method
        self.received = Received(geometry, self.placement.device)
        self._unsealed = False
        self.room: int | None = None
        """Tokens that a step reads; None: all."""
        self.heavy_GK: Tensor | None = None
        """Slots of the heavy hitters, in order; None while there is room for all."""

    def prefill(self, q_HQD: Tensor, k_GQD: Tensor, v_GQD: Tensor) -> Partial:
        """See LayerState."""
        total = super().prefill(q_HQD, k_GQD, v_GQD)
        self.received.add(q_HQD, total.lse, self.store)
        self._unsealed, self.room, self.heavy_GK = True, None, None
        return total

    def adopt(self, k_GTD: Tensor, v_GTD: Tensor, q_HSD: Tensor | None = None) -> None:
        """See StoredState. Attends once more. Raises ValueError where `q_HSD` lacks queries."""
        self.prefill(check_whole(H2O.name, q_HSD, k_GTD.shape[1]), k_GTD, v_GTD)

    def seal(self) -> None:
        """See LayerState. Chooses what is read of everything stored."""
        super().seal()
        if self._unsealed:
            self._unsealed = False
            self.room = self.method.kept(len(self.store), self.geometry.layer)
            self._evict(len(self.store))

    def append(self, k_GD: Tensor, v_GD: Tensor) -> None:
        """See LayerState. May evict a token of each KV head."""
        self._evict(len(self.store) + 1)
        super().append(k_GD, v_GD)

    def decode(self, q_HD: Tensor) -> Partial:
        """See LayerState. What is read receives what it is given."""
        total = super().decode(q_HD)
        device = self.placement.device
        q_here_HD, lse_H = q_HD.to(device), total.lse.to(device)
        start = self.recent_from(len(self.store))
        self.received.add(q_here_HD[:, None], lse_H[:, None], self.store, start)
        if self.heavy_GK is not None:
            self.received.add_to(self.heavy_GK, q_here_HD, lse_H, self.store)
        return total

    @property
    def remembers(self) -> bool:
        """See LayerState."""
        return True

    def remember(self, q_HD: Tensor) -> None:
        """See LayerState."""
        self.decode(q_HD)

    def read(self, q_HD: Tensor) -> Reading:
        """Heavy hitters and last tokens."""
        if self.heavy_GK is None:
            return super().read(q_HD)
        start = self.recent_from(len(self.store))
        slot_GK = self.heavy_GK.int()
        runs = Runs(slot_GK, None, torch.full_like(slot_GK[:, 0], slot_GK.shape[1]))
        ranges = ((start, len(self.store)),)
        partials = self.placement.attend_ranges(q_HD, ranges)
        partials += self.placement.attend_runs(q_HD, runs, (0, start))
        return Reading(partials, Selection(ranges, runs))

    def fork(self) -> Self:
        """See LayerState."""
        twin = super().fork()
        twin.received = self.received.fork()
        return twin

    def memory(self) -> dict[str, int]:
        """See LayerState."""
        return {**super().memory(), "index_bytes": self.received.nbytes}

    def recent_from(self, tokens: int) -> int:
        """The first of the last ones of so many tokens; 0 where all are read."""
        if self.room is None or tokens <= self.room:
            return 0
        return tokens - (self.room - self.room // 2)

    def _evict(self, tokens: int) -> None:
        """Choose the heavy hitters for when so many tokens are stored, the last of which may be yet
        to come.
        """
        if self.room is None or tokens <= self.room:
            return
        heavy = self.room // 2
        stop = tokens - (self.room - heavy)
        if self.heavy_GK is None:
            slot_T = torch.arange(stop, device=self.placement.device)
            all_GT = slot_T.expand(self.geometry.kv_heads, -1)
            self.heavy_GK = self._scores(all_GT).topk(heavy, dim=-1).indices.sort().values
            return
        leaving_G1 = torch.full_like(self.heavy_GK[:, :1], stop - 1)
        rivals_GK = torch.cat([self.heavy_GK, leaving_G1], dim=1)
        least_G1 = self._scores(rivals_GK).argmin(1, keepdim=True)
        place_K = torch.arange(heavy, device=rivals_GK.device)
        self.heavy_GK = rivals_GK.gather(1, place_K + (place_K >= least_G1))

    def _scores(self, slot_GK: Tensor) -> Tensor:
        """float32 [G, K]: by which tokens compete."""
        tokens = len(self.store)
        sum_GK = self.received.of(0, tokens).gather(1, slot_GK)
        return sum_GK if self.method.score == "sum" else sum_GK / (tokens - slot_GK)
