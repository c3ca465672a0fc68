"""The frame of a layer's state: exact prefill over what is stored, storage, and a decode that
subclasses narrow down.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from math import inf, isfinite
from typing import TYPE_CHECKING, Self

import torch

from longspan.methods.base import LayerState
from longspan.placement.base import Traffic, place
from longspan.placement.part import Part
from longspan.prefill.full import FullPrefill
from longspan.tensors import check_shape
from longspan.types import Partial, Selection, Work
from longspan_kernels.merge import merge

if TYPE_CHECKING:
    from torch import Tensor

    from longspan.methods.prompt import LayerPrompt
    from longspan.placement.base import Place, PlacementName
    from longspan.prefill.base import Prefill
    from longspan.types import Estimate, LayerGeometry, Runs

FREEZE_TOKENS = 1024
"""Fewer tokens than this stay in the tail of the store, where they cost no part of their own."""


def run_tokens(runs: Runs) -> int:
    """Entries that the runs cover, all rows together."""
    if runs.size_NK is None:
        return int(runs.count_N.sum())
    live_NK = torch.arange(runs.size_NK.shape[1], device=runs.count_N.device)
    return int(torch.where(live_NK < runs.count_N[:, None], runs.size_NK, 0).sum())


def estimated_tokens(estimate: Estimate) -> float:
    """Tokens that the selected pseudo-tokens stand for, mean over the rows of `estimate.ids`."""
    ids_NK, count_N = estimate.ids.start_NK.long(), estimate.ids.count_N
    live_NK = torch.arange(ids_NK.shape[1], device=ids_NK.device) < count_N[:, None]
    rows_a_group = count_N.shape[0] // estimate.tokens_GC.shape[0]
    tokens_NC = estimate.tokens_GC.repeat_interleave(rows_a_group, dim=0)
    tokens_NK = tokens_NC.gather(1, torch.where(live_NK, ids_NK, 0))
    return float(torch.where(live_NK, tokens_NK, 0).sum()) / count_N.shape[0]


def check_finite(name: str, numbers: Tensor) -> None:
    """ValueError where a tensor in host memory holds NaN or infinity."""
    if numbers.device.type == "cpu" and not isfinite(torch.linalg.vector_norm(numbers, inf)):
        raise ValueError(f"{name} holds NaN or infinity; attention needs finite numbers")


@dataclass(frozen=True, slots=True)
class Reading:
    """What one decode step did: disjoint partial attentions, and how they came about."""

    partials: list[Partial]
    selection: Selection
    distances: float = 0.0
    hops: float = 0.0
    index_bytes: float | Tensor = 0.0
    """A tensor where a GPU counted them: who only decodes does not wait for it."""


class StoredState(LayerState):
    """Stores every token and attends `read`'s choice of them; by itself, all of them."""

    def __init__(self, geometry: LayerGeometry, placement: Place | PlacementName) -> None:
        self.geometry = geometry
        self.placement = place(placement, geometry)
        self.store = self.placement.store
        self.prefill_by: Prefill = FullPrefill()
        self._reading: Reading | None = None

    def prefill(self, q_HQD: Tensor, k_GQD: Tensor, v_GQD: Tensor) -> Partial:
        """See LayerState. The chunk is attended where the queries are."""
        sizes = {"H": self.geometry.query_heads, "D": self.geometry.head_size}
        positions = check_shape("q", q_HQD, "HQD", **sizes)["Q"]
        sizes = {"G": self.geometry.kv_heads, "Q": positions, "D": self.geometry.head_size}
        check_shape("k", k_GQD, "GQD", **sizes)
        check_shape("v", v_GQD, "GQD", **sizes)
        chunk = Part(len(self.store), k_GQD, v_GQD)
        past = self.placement.blocks(q_HQD.device)
        total = self.prefill_by.attend(self.geometry, q_HQD, chunk, past)
        self.store.append(k_GQD, v_GQD)
        return total

    def read_in_full(self) -> None:
        """See LayerState."""
        self.prefill_by = FullPrefill()

    def takes_over(self, prompt: LayerPrompt) -> bool:
        """See LayerState. Who does more in `prefill` has to say so here."""
        return type(self).prefill is StoredState.prefill

    def take_over(self, prompt: LayerPrompt) -> None:
        """See LayerState."""
        self.store.append(*prompt.kv_GTDs)

    def adopt(self, k_GTD: Tensor, v_GTD: Tensor, q_HSD: Tensor | None = None) -> None:
        """Store a prompt that was attended elsewhere, in place of `prefill`; `q_HSD` are some of
        its queries, in order.
        """
        self.store.append(k_GTD, v_GTD)

    def seal(self) -> None:
        """See LayerState. Freezes a long prompt, so that forks share it."""
        if len(self.store) - self.store.frozen >= FREEZE_TOKENS:
            self.store.freeze(len(self.store))
            self.store.compact()

    def append(self, k_GD: Tensor, v_GD: Tensor) -> None:
        """See LayerState."""
        self.store.append(k_GD[:, None], v_GD[:, None])

    def decode(self, q_HD: Tensor) -> Partial:
        """See LayerState. Raises ValueError while nothing is stored, and where q or what is read of
        keys and values holds NaN or infinity (looked for in host memory only: a GPU would wait).
        """
        check_shape("q", q_HD, "HD", H=self.geometry.query_heads, D=self.geometry.head_size)
        if not len(self.store):
            raise ValueError("nothing is stored; decode needs a prefill or an append before it")
        q_here_HD = q_HD.to(self.placement.device)
        check_finite("q", q_here_HD)
        self._reading = self.read(q_here_HD)
        partials = self._reading.partials
        total = merge(partials) if len(partials) > 1 else partials[0]
        check_finite("a key that q reads", total.lse)
        check_finite("a value that q reads", total.out)
        return Partial(total.out.to(q_HD.device), total.lse.to(q_HD.device))

    def read(self, q_HD: Tensor) -> Reading:
        """Attend one query position on the placement's device."""
        return self.read_steady(q_HD, ((0, len(self.store)),))

    def read_steady(self, q_HD: Tensor, ranges: tuple[tuple[int, int], ...]) -> Reading:
        """Attend slot ranges exactly."""
        return Reading(self.placement.attend_ranges(q_HD, ranges), Selection(steady=ranges))

    def zones(
        self, sink: int, local: int, tokens: int | None = None
    ) -> tuple[tuple[int, int], ...]:
        """The slot ranges of the first `sink` and the last `local` of so many tokens, by default
        what is stored; they do not overlap.
        """
        tokens = len(self.store) if tokens is None else tokens
        if sink + local >= tokens:
            return ((0, tokens),)
        both = ((0, sink), (tokens - local, tokens))
        return tuple(zone for zone in both if zone[0] < zone[1])

    def fork(self) -> Self:
        """See LayerState."""
        twin = copy(self)
        twin.placement = self.placement.fork()
        twin.store = twin.placement.store
        return twin

    def join(self, below: LayerState) -> None:
        """See LayerState."""
        if isinstance(below, StoredState):
            self.placement.join(below.placement)

    def tell(self, reading: Reading | None) -> None:
        """A step was done elsewhere, and this is what it did; None: it is still to be done."""
        self._reading = reading

    @property
    def reading(self) -> Reading:
        """What the last `decode` did. RuntimeError before the first."""
        if self._reading is None:
            raise RuntimeError("no decode step yet, so there is nothing it attended")
        return self._reading

    @property
    def selection(self) -> Selection:
        """See LayerState."""
        return self.reading.selection

    def work(self) -> Work:
        """See LayerState."""
        reading, geometry = self.reading, self.geometry
        exact = float(sum(stop - start for start, stop in reading.selection.steady))
        rows_read = exact * geometry.kv_heads
        if (runs := reading.selection.retrieved) is not None:
            tokens = run_tokens(runs)
            exact += tokens / runs.count_N.shape[0]
            rows_read += tokens
        summary = reading.selection.estimated
        cache, rows = self.placement.last or Traffic(), geometry.kv_heads
        if reading.selection.retrieved is not None:
            rows = reading.selection.retrieved.count_N.shape[0]
        return Work(
            exact_tokens=exact,
            estimated_tokens=0.0 if summary is None else estimated_tokens(summary),
            distances=reading.distances,
            hops=reading.hops,
            index_bytes=float(reading.index_bytes),
            kv_bytes=rows_read * geometry.entry_bytes,
            cached_tokens=cache.hit_entries / rows,
            missed_tokens=cache.miss_entries / rows,
            bus_bytes=float(cache.bus_bytes),
        )

    def memory(self) -> dict[str, int]:
        """See LayerState."""
        return {"kv_bytes": self.placement.nbytes, "index_bytes": 0}
