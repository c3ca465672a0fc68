"""SnapKV: of the prompt, the tokens that its last queries attend, whatever is asked later."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal, Self

import torch
import torch.nn.functional as F

from longspan.methods.base import Method
from longspan.methods.frame import Reading, StoredState
from longspan.methods.plan import share_of_layer
from longspan.methods.queries import QuerySample
from longspan.methods.static import elsewhere
from longspan.methods.static_snap import StaticSnap
from longspan.options import Count, Fraction, Fractions, Number, settings
from longspan.placement.base import OnePlace
from longspan.types import Runs, Selection, StepBytes
from longspan_kernels.dense_decode.reference import scores

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from longspan.methods.base import LayerState
    from longspan.methods.prompt import LayerPrompt
    from longspan.types import LayerGeometry, Partial


@settings
class SnapKV(Method):
    """Li et al., "SnapKV: LLM Knows What You are Looking for Before Generation", arXiv 2404.14469.

    budget: share of the prompt kept, window included. kept_tokens: that many instead.
    layer_budgets: a share of each of the model's layers, e.g. falling as a pyramid (PyramidKV,
    arXiv 2406.02069: longspan.studies.allocation.pyramid). window_tokens: last tokens of the
    prompt, which are kept and whose queries choose. kernel: width of the pooling of what they
    attend. pooling: `mean` (later code) or `max`. group: how the heads of a KV head, which keep one
    set, are put together. placement: where keys and values live.

    Deviations: one set a KV head (the first code keeps one a query head), tokens keep their true
    positions, and what is evicted stays in the store: unread by decode steps, so that recall can be
    measured, but seen by a further turn's prefill, after which the choice is made anew.
    protocol=question_sparse hides the question from the window, question_dense does not.
    """

    name: ClassVar[str] = "snapkv"

    budget: Fraction = 0.018
    kept_tokens: Count | None = None
    layer_budgets: Fractions | None = None
    window_tokens: Count = 32
    kernel: Number = 5
    pooling: Literal["mean", "max"] = "mean"
    group: Literal["mean", "max"] = "mean"
    placement: OnePlace = "gpu"

    def layer(self, geometry: LayerGeometry) -> SnapState:
        """See Method."""
        return SnapState(self, geometry)

    def static_obstacle(self, geometry: LayerGeometry) -> str | None:
        """See Method."""
        return elsewhere(self.placement, geometry)

    def static_layer(self, states: Sequence[LayerState], limits: Sequence[int]) -> StaticSnap:
        """See Method."""
        return StaticSnap(states, limits)

    def static_bytes(
        self, geometry: LayerGeometry, held: Sequence[int], limits: Sequence[int]
    ) -> StepBytes:
        """See Method."""
        kept = max(self.kept(each, geometry.layer, self.window_tokens) for each in held)
        return StepBytes(len(held) * geometry.kv_heads * 4 * (kept + 1))

    def kept(self, prompt: int, layer: int, window: int) -> int:
        """Tokens of a prompt that this layer keeps beside a window of so many; at least one."""
        share = self.budget
        if self.layer_budgets is not None:
            share = share_of_layer(self.layer_budgets, layer)
        total = round(share * prompt) if self.kept_tokens is None else self.kept_tokens
        return max(1, total - window)


class SnapState(StoredState):
    """One layer of one sequence."""

    def __init__(self, method: SnapKV, geometry: LayerGeometry) -> None:
        super().__init__(geometry, method.placement)
        self.method = method
        self._queries = QuerySample(method.window_tokens, 0)
        self._stop = 0
        """Slots before this are read as chosen, those behind it all."""
        self._kept: Runs | None = None
        self._chosen_of = 0
        """Tokens stored when it was chosen."""

    def prefill(self, q_HQD: Tensor, k_GQD: Tensor, v_GQD: Tensor) -> Partial:
        """See LayerState."""
        total = super().prefill(q_HQD, k_GQD, v_GQD)
        self._queries.add(q_HQD)
        return total

    def takes_over(self, prompt: LayerPrompt) -> bool:
        """See LayerState."""
        return prompt.queries.covers(self._queries) and type(self).prefill is SnapState.prefill

    def take_over(self, prompt: LayerPrompt) -> None:
        """See LayerState."""
        super().take_over(prompt)
        self._queries = prompt.queries.narrowed(self._queries, self.geometry.device)

    def adopt(self, k_GTD: Tensor, v_GTD: Tensor, q_HSD: Tensor | None = None) -> None:
        """See StoredState."""
        super().adopt(k_GTD, v_GTD)
        if q_HSD is not None:
            self._queries.add(q_HSD)

    def append(self, k_GD: Tensor, v_GD: Tensor) -> None:
        """See LayerState. A further turn's window begins behind what is generated."""
        super().append(k_GD, v_GD)
        self.answered()

    def answered(self) -> None:
        """Something was generated behind what the window saw."""
        self._queries = QuerySample(self.method.window_tokens, 0)

    def seal(self) -> None:
        """See LayerState. Chooses what is kept of everything stored, if there is more of it."""
        super().seal()
        window_HQD, tokens = self._queries.queries(), len(self.store)
        if window_HQD is None or tokens == self._chosen_of:
            return
        window = window_HQD.shape[1]  # a short turn has fewer
        before = tokens - window
        kept = self.method.kept(tokens, self.geometry.layer, window)
        self._kept, self._stop, self._chosen_of = None, 0, tokens
        if kept < before:
            weight_GT = self.seen(window_HQD.to(self.placement.device), before)
            slot_GK = weight_GT.topk(kept, dim=-1).indices.sort().values.int()
            self._kept = Runs(slot_GK, None, torch.full_like(slot_GK[:, 0], kept))
            self._stop = before

    def seen(self, window_HQD: Tensor, before: int) -> Tensor:
        """float32 [G, T]: the pooled attention that the last Q tokens pay to the T before them."""
        _, window, width = window_HQD.shape
        scale, softcap = self.geometry.scale, self.geometry.softcap
        later_QQ = torch.ones(window, window, dtype=torch.bool, device=window_HQD.device).triu(1)
        paid = []
        for group, q_ND in enumerate(window_HQD.reshape(self.geometry.kv_heads, -1, width)):
            keys = [part.keys_GTD[group : group + 1] for part in self.store.parts]
            z_NT = torch.cat([scores(q_ND, k_1TD, scale, softcap)[0] for k_1TD in keys], dim=-1)
            z_RQT = z_NT.reshape(-1, window, before + window)
            z_RQT[..., before:].masked_fill_(later_QQ, float("-inf"))
            paid_RT = z_RQT.softmax(-1)[..., :before].sum(1)
            paid.append(paid_RT.mean(0) if self.method.group == "mean" else paid_RT.amax(0))
        return pooled(torch.stack(paid), self.method.kernel, self.method.pooling)

    def read(self, q_HD: Tensor) -> Reading:
        """What is kept, the window and what is generated."""
        chosen = self.chosen(len(self.store))
        partials = self.placement.attend_ranges(q_HD, chosen.steady)
        if chosen.retrieved is not None:
            partials += self.placement.attend_runs(q_HD, chosen.retrieved, (0, self._stop))
        return Reading(partials, chosen)

    def chosen(self, tokens: int) -> Selection:
        """What is read of so many tokens."""
        return Selection(((self._stop, tokens),), self._kept)

    def fork(self) -> Self:
        """See LayerState."""
        twin = super().fork()
        twin._queries = self._queries.fork()
        return twin


def pooled(weight_GT: Tensor, kernel: int, pooling: Literal["mean", "max"]) -> Tensor:
    """Mean or largest of the `kernel` weights around each; beyond the ends there is nothing."""
    pad = (kernel - 1) // 2, kernel // 2
    if pooling == "max":
        padded_GT = F.pad(weight_GT, pad, value=float("-inf"))
        return F.max_pool1d(padded_GT[None], kernel, 1)[0]
    return F.avg_pool1d(F.pad(weight_GT, pad)[None], kernel, 1)[0]
