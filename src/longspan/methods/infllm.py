"""InfLLM: blocks of tokens, chosen by those of their tokens that were attended most when near."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Self

from pydantic import model_validator

from longspan.indexes.representatives import RepresentativeIndex
from longspan.methods.paged import PagedRetrieval, PagedState
from longspan.methods.received import Received, check_whole
from longspan.methods.static import StaticStored
from longspan.methods.static_received import received_bytes
from longspan.methods.static_weighed import StaticWeighed
from longspan.options import Count, settings
from longspan.types import StepBytes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from longspan.indexes.base import KeyIndex
    from longspan.methods.base import LayerState
    from longspan.methods.plan import Plan
    from longspan.types import LayerGeometry, Partial


@settings
class InfLLM(PagedRetrieval):
    """Xiao et al., "InfLLM: Training-Free Long-Context Extrapolation for LLMs with an Efficient
    Context Memory", NeurIPS 2024, arXiv 2402.04617.

    Beside the settings of PagedRetrieval, whose pages are its blocks. representatives: tokens of a
    block that speak for it, those that received most attention from the next local_tokens queries
    behind them, KV head by KV head. Blocks are chosen once for all heads of a layer.

    Static tokens are those of RetrievalAttention's comparison (640, beside 2,048 retrieved:
    top_tokens=2048); the paper has a window of 4,096 and 16 blocks. The default reads a share of
    the context, to be compared with RetroInfer at equal tokens.

    Deviations: tokens keep their true positions (the paper gives all far ones the same distance,
    for models that were not trained for long contexts). The prompt is read with full attention,
    whose weights its tokens receive; there each chunk of 512 retrieves blocks, and weights are over
    what is read, as here of generated tokens.
    """

    name: ClassVar[str] = "infllm"

    local_tokens: Count = 512
    update_tokens: Count = 128
    page_tokens: Count = 128
    representatives: Count = 4

    @model_validator(mode="after")
    def _representatives_are_of_a_block(self) -> Self:
        if self.representatives > self.page_tokens:
            raise ValueError(
                f"method.representatives = {self.representatives}: right would be at most"
                f" page_tokens, {self.page_tokens}"
            )
        return self

    def index(self, geometry: LayerGeometry) -> RepresentativeIndex:
        """See VectorRetrieval."""
        return RepresentativeIndex(self.page_tokens, self.representatives)

    def static_layer(self, states: Sequence[LayerState], limits: Sequence[int]) -> StaticStored:
        """See Method."""
        weighed = isinstance(states[0], InfLLMState)
        return StaticWeighed(states, limits) if weighed else StaticStored(states, limits)

    def searched_bytes(
        self, geometry: LayerGeometry, held: Sequence[int], limits: Sequence[int]
    ) -> StepBytes:
        """See VectorRetrieval."""
        pages = super().searched_bytes(geometry, held, limits)
        sums = received_bytes(geometry, len(held), max(limits), self.local_tokens)
        return StepBytes(pages.kept + sums.kept, max(pages.passing, sums.passing), moved=True)

    def state(self, geometry: LayerGeometry, plan: Plan, index: KeyIndex) -> InfLLMState:
        """See VectorRetrieval."""
        return InfLLMState(geometry, self.whole(plan), index)


class InfLLMState(PagedState):
    """One layer of one sequence. What enters the index is a local window behind the last token, so
    that all queries that count have been seen.
    """

    def __init__(self, geometry: LayerGeometry, plan: Plan, index: KeyIndex) -> None:
        super().__init__(geometry, plan, index)
        self.weighed = Received(geometry, self.placement.device, plan.local_tokens)

    def prefill(self, q_HQD: Tensor, k_GQD: Tensor, v_GQD: Tensor) -> Partial:
        """See LayerState."""
        total = super().prefill(q_HQD, k_GQD, v_GQD)
        self.weighed.add(q_HQD, total.lse, self.store)
        return total

    def adopt(self, k_GTD: Tensor, v_GTD: Tensor, q_HSD: Tensor | None = None) -> None:
        """See StoredState. Attends once more. Raises ValueError where `q_HSD` lacks queries."""
        self.prefill(check_whole(InfLLM.name, q_HSD, k_GTD.shape[1]), k_GTD, v_GTD)

    def decode(self, q_HD: Tensor) -> Partial:
        """See LayerState. The local window, which is read whole, receives what it is given."""
        total = super().decode(q_HD)
        device = self.placement.device
        self.weighed.add(q_HD[:, None].to(device), total.lse[:, None].to(device), self.store)
        return total

    @property
    def remembers(self) -> bool:
        """See LayerState."""
        return True

    def remember(self, q_HD: Tensor) -> None:
        """See LayerState."""
        self.decode(q_HD)

    def received(self, start: int, stop: int) -> Tensor:
        """See RetrievalState."""
        return self.weighed.of(start, stop)

    def fork(self) -> Self:
        """See LayerState."""
        twin = super().fork()
        twin.weighed = self.weighed.fork()
        return twin

    def memory(self) -> dict[str, int]:
        """See LayerState."""
        held = super().memory()
        return {**held, "index_bytes": held["index_bytes"] + self.weighed.nbytes}
