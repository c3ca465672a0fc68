"""Steady zone + index + estimation: the composition that most methods are.

A decode step attends the first `sink_tokens`, the last `local_tokens` and everything not indexed
yet exactly, adds what the index retrieves (exactly) and what it summarises (as pseudo-tokens), and
merges the parts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from longspan.indexes.base import Budget, Segment
from longspan.methods.frame import Reading, StoredState
from longspan.methods.queries import QuerySample
from longspan.methods.summaries import summarised
from longspan.types import Selection
from longspan_kernels.merge import merge

if TYPE_CHECKING:
    from torch import Tensor

    from longspan.indexes.base import KeyIndex, SearchResult
    from longspan.methods.plan import Plan
    from longspan.methods.prompt import LayerPrompt
    from longspan.types import LayerGeometry, Partial, Runs


class RetrievalState(StoredState):
    """One layer of one sequence, read through an index.

    Slots: sink, indexed (frozen, in the order the index asked for), not yet indexed (with the local
    window at its end). While nothing is indexed, which is so for short inputs, attention is full.
    """

    def __init__(self, geometry: LayerGeometry, plan: Plan, index: KeyIndex) -> None:
        super().__init__(geometry, plan.placement)
        self.plan, self.index = plan, index
        self._queries: QuerySample | None = None
        if index.wants_queries:
            self._queries = QuerySample(plan.query_window, plan.query_cap)
        self._asked_HD: Tensor | None = None
        """The last query."""

    @property
    def indexed(self) -> tuple[int, int]:
        """The slots [start, stop) that the index covers."""
        return self.plan.sink_tokens, self.plan.sink_tokens + self.index.tokens

    def prefill(self, q_HQD: Tensor, k_GQD: Tensor, v_GQD: Tensor) -> Partial:
        """See LayerState."""
        result = super().prefill(q_HQD, k_GQD, v_GQD)
        self._asked_HD = q_HQD[:, -1].clone()
        if self._queries is not None:
            self._queries.add(q_HQD)
        return result

    def takes_over(self, prompt: LayerPrompt) -> bool:
        """See LayerState."""
        known = self._queries is None or prompt.queries.covers(self._queries)
        return known and type(self).prefill is RetrievalState.prefill

    def take_over(self, prompt: LayerPrompt) -> None:
        """See LayerState."""
        super().take_over(prompt)
        self._asked_HD = prompt.queries.last_HD.to(self.geometry.device)
        if self._queries is not None:
            self._queries = prompt.queries.narrowed(self._queries, self.geometry.device)

    def adopt(self, k_GTD: Tensor, v_GTD: Tensor, q_HSD: Tensor | None = None) -> None:
        """See StoredState."""
        super().adopt(k_GTD, v_GTD)
        if q_HSD is None:
            return
        self._asked_HD = q_HSD[:, -1].clone()
        if self._queries is not None:
            self._queries.add(q_HSD)

    def seal(self) -> None:
        """See LayerState. Indexes everything but sink and local window, if that is at least
        `update_tokens`.
        """
        if self._waiting() >= self.plan.update_tokens:
            self.absorb(self._waiting(), generated=False)

    def append(self, k_GD: Tensor, v_GD: Tensor) -> None:
        """See LayerState. What waits for the index may enter it before the token is stored."""
        if len(self.store) >= self.next_update:
            self.absorb(self.plan.update_tokens, generated=True)
        super().append(k_GD, v_GD)

    @property
    def next_update(self) -> int:
        """With so many tokens stored, `append` extends the index; each layer a step later than the
        one below, lest one step pay for all.
        """
        update = self.plan.update_tokens
        return self.indexed[1] + self.plan.local_tokens + update + self.geometry.layer % update

    @property
    def remembers(self) -> bool:
        """See LayerState."""
        return self.index.learns

    def remember(self, q_HD: Tensor) -> None:
        """See LayerState."""
        if self.index.tokens:
            self.index.remember(q_HD.to(self.placement.device))

    def decode(self, q_HD: Tensor) -> Partial:
        """See LayerState."""
        self._asked_HD = q_HD
        return super().decode(q_HD)

    def prefetch(self) -> None:
        """See LayerState."""
        if self.placement.traffic is not None and (runs := self.expected()) is not None:
            self.placement.prefetch(runs, self.indexed)

    def expected(self) -> Runs | None:
        """What the last query would retrieve; None where there was none, or nothing is indexed, or
        the index learns of queries, which it would do twice.
        """
        if self._asked_HD is None or not self.index.tokens or self.index.learns:
            return None
        _, _, found = self._found(self._asked_HD.to(self.placement.device))
        return found.retrieved

    def read(self, q_HD: Tensor) -> Reading:
        """See StoredState."""
        if not self.index.tokens:
            return super().read(q_HD)
        ranges, partials, found = self._found(q_HD)
        partials += self.placement.attend_runs(q_HD, found.retrieved, self.indexed)
        partials += self.attend_summaries(q_HD, found)
        return Reading(
            partials,
            Selection(ranges, found.retrieved, found.estimated),
            distances=found.distances,
            hops=found.hops,
            index_bytes=found.bytes,
        )

    def _found(
        self, q_HD: Tensor
    ) -> tuple[tuple[tuple[int, int], ...], list[Partial], SearchResult]:
        """The steady zone, attention to it, and what the index finds besides."""
        start, stop = self.indexed
        ranges = self.zones(start, len(self.store) - stop)
        partials = self.placement.attend_ranges(q_HD, ranges)
        budget = self.budget(merge(partials).lse if partials else None)
        return ranges, partials, self.search(q_HD, budget)

    def search(self, q_HD: Tensor, budget: Budget) -> SearchResult:
        """What the index finds for a query."""
        return self.index.search(q_HD, budget, self.geometry.scale)

    def budget(self, exact_lse_H: Tensor | None = None) -> Budget:
        """What a search may read now."""
        return Budget(
            retrieve_tokens=self.plan.retrieve.of(self.index.tokens),
            estimate_tokens=self.plan.estimate.of(self.index.tokens),
            effort=self.plan.effort,
            exact_lse_H=exact_lse_H,
        )

    def attend_summaries(self, q_HD: Tensor, found: SearchResult) -> list[Partial]:
        """Attention over the pseudo-tokens that stand for what is not read."""
        partials = [] if found.tail is None else [found.tail]
        if found.estimated is not None:
            partials.append(summarised(self.geometry, q_HD, found.estimated))
        return partials

    def fork(self) -> Self:
        """See LayerState."""
        twin = super().fork()
        twin.index = self.index.fork()
        twin._queries = None if self._queries is None else self._queries.fork()
        return twin

    def memory(self) -> dict[str, int]:
        """See LayerState."""
        return {"kv_bytes": self.placement.nbytes, "index_bytes": self.index.nbytes}

    def _waiting(self) -> int:
        """Tokens between the indexed ones and the local window."""
        return len(self.store) - self.indexed[1] - self.plan.local_tokens

    def received(self, start: int, stop: int) -> Tensor | None:
        """float32 [G, T]: the attention that the slots [start, stop) received, on the placement's
        device; None where nobody counts it.
        """
        return None

    def absorb(self, tokens: int, *, generated: bool) -> None:
        """Bring the oldest `tokens` that wait into the index, and into the order it asks for."""
        _, first = self.indexed
        self.store.freeze(first + tokens)
        (part,) = self.store.slices(first, first + tokens)
        queries_HSD = self._queries.queries() if self._queries is not None else None
        if queries_HSD is not None:
            queries_HSD = queries_HSD.to(self.placement.device)
        keys_GTD = part.keys_GTD.to(self.placement.device)
        values_GTD = part.values_GTD.to(self.placement.device)
        received_GT = self.received(first, first + tokens)
        segment = Segment(keys_GTD, values_GTD, first, queries_HSD, received_GT)
        order_GT = self.index.append(segment) if generated else self.index.build(segment)
        if order_GT is not None:
            self.store.reorder(first, order_GT)
        self.store.compact()
        self.index.keys_at([each.keys_GTD for each in self.store.slices(*self.indexed)])
        if self._queries is not None:
            self._queries = QuerySample(self.plan.query_window, self.plan.query_cap)
