"""Static tokens on the model's device, the index and all other tokens in host memory, both attended
at once.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TYPE_CHECKING, Self

from longspan.methods.frame import Reading
from longspan.methods.retrieval import RetrievalState
from longspan.placement.store import KVStore
from longspan.types import Partial, Selection
from longspan_kernels.dense_decode import dense_decode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from longspan.indexes.base import KeyIndex, SearchResult
    from longspan.methods.plan import Plan
    from longspan.types import LayerGeometry


@cache
def helper() -> ThreadPoolExecutor:
    """The thread that searches while the caller attends."""
    return ThreadPoolExecutor(1, thread_name_prefix="longspan-search")


class Near:
    """Copies of a few slot ranges on the model's device, which grow as the ranges do."""

    def __init__(self, geometry: LayerGeometry) -> None:
        self.geometry = geometry
        self._held: dict[int, KVStore] = {}

    def attend_ranges(
        self, q_HD: Tensor, store: KVStore, ranges: Sequence[tuple[int, int]]
    ) -> list[Partial]:
        """Exact attention over slot ranges [start, stop) of `store`; what is not here yet is
        copied, what no range names is dropped.
        """
        geometry = self.geometry
        self._held = {start: self._filled(store, start, stop) for start, stop in ranges}
        return [
            dense_decode(
                q_HD.to(geometry.device),
                part.keys_GTD,
                part.values_GTD,
                scale=geometry.scale,
                softcap=geometry.softcap,
            )
            for near in self._held.values()
            for part in near.parts
        ]

    def _filled(self, store: KVStore, start: int, stop: int) -> KVStore:
        near, shape = self._held.get(start), self.geometry
        if near is None or len(near) > stop - start:
            near = KVStore(shape.kv_heads, shape.head_size, shape.dtype, shape.device)
        for part in store.slices(start + len(near), stop):
            near.append(part.keys_GTD, part.values_GTD)
        return near


class SplitState(RetrievalState):
    """As its base, but that the thread of `helper` searches and attends what is retrieved while
    the caller attends the static tokens. The search does not learn of the static tokens' mass.
    """

    def __init__(self, geometry: LayerGeometry, plan: Plan, index: KeyIndex) -> None:
        super().__init__(geometry, plan, index)
        self.near = Near(geometry)

    def read(self, q_HD: Tensor) -> Reading:
        """See StoredState."""
        start, stop = self.indexed
        if start == stop:
            return super().read(q_HD)
        ranges = self.zones(start, len(self.store) - stop)
        found, partials, near = self.together(q_HD, ranges)
        partials += [Partial(each.out.to(q_HD.device), each.lse.to(q_HD.device)) for each in near]
        return Reading(
            partials,
            Selection(ranges, found.retrieved, found.estimated),
            distances=found.distances,
            hops=found.hops,
            index_bytes=found.bytes,
        )

    def together(
        self, q_HD: Tensor, ranges: Sequence[tuple[int, int]]
    ) -> tuple[SearchResult, list[Partial], list[Partial]]:
        """What was found, the attention to it, and that to the static tokens."""
        far = helper().submit(self._far, q_HD)
        try:
            near = self.near.attend_ranges(q_HD, self.store, ranges)
        finally:
            found, partials = far.result()
        return found, partials, near

    def _far(self, q_HD: Tensor) -> tuple[SearchResult, list[Partial]]:
        found = self.index.search(q_HD, self.budget(), self.geometry.scale)
        partials = self.placement.attend_runs(q_HD, found.retrieved, self.indexed)
        return found, partials + self.attend_summaries(q_HD, found)

    def fork(self) -> Self:
        """See LayerState."""
        twin = super().fork()
        twin.near = Near(self.geometry)
        return twin
