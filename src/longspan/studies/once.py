"""A prompt that is read once and answered by many methods.

Prefill is exact whatever the method, so its keys and values, and the queries that some indexes
learn from, serve all of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Self

from longspan.methods.base import Method
from longspan.methods.frame import StoredState
from longspan.methods.full import Full
from longspan.methods.queries import QuerySample

if TYPE_CHECKING:
    from torch import Tensor

    from longspan.methods.base import LayerState
    from longspan.models.base import Session
    from longspan.types import LayerGeometry, Partial, Selection, Work

WINDOW, CAP = 512, 4096
"""Prompt queries kept: the last ones, and an even sample of the others."""


class Once(Method):
    """Full attention, until a state is told to go on as another method."""

    name: ClassVar[str] = "once"

    def layer(self, geometry: LayerGeometry) -> OnceState:
        """See Method."""
        return OnceState(geometry, "gpu")


class OnceState(StoredState):
    """Reads the prompt with full attention and keeps a sample of its queries; what it becomes does
    the rest.
    """

    _self: LayerState | None = None
    _queries: QuerySample | None = None

    def prefill(self, q_HQD: Tensor, k_GQD: Tensor, v_GQD: Tensor) -> Partial:
        """See LayerState."""
        if self._queries is None:
            self._queries = QuerySample(WINDOW, CAP)
        self._queries.add(q_HQD)
        return super().prefill(q_HQD, k_GQD, v_GQD)

    @property
    def queries_HSD(self) -> Tensor:
        """The sample. RuntimeError before a prompt was read."""
        queries_HSD = None if self._queries is None else self._queries.queries()
        if queries_HSD is None:
            raise RuntimeError("no prompt was read, so there are no queries")
        return queries_HSD

    def become(self, method: Method) -> None:
        """Go on as a state of `method` that has read the same prompt."""
        self._self = adopted(method, self.geometry, self.kv_GTDs, self.queries_HSD)
        self.store = self._self.store

    @property
    def kv_GTDs(self) -> tuple[Tensor, Tensor]:
        """Keys and values of the prompt."""
        (part,) = self.placement.store.parts
        return part.keys_GTD, part.values_GTD

    def seal(self) -> None:
        """See LayerState."""
        self.store.freeze(len(self.store))
        self.store.compact()

    def append(self, k_GD: Tensor, v_GD: Tensor) -> None:
        """See LayerState."""
        self._other.append(k_GD, v_GD)

    def decode(self, q_HD: Tensor) -> Partial:
        """See LayerState."""
        return self._other.decode(q_HD)

    @property
    def expects(self) -> bool:
        """See LayerState."""
        return self._other.expects

    def expect(self, q_HD: Tensor) -> None:
        """See LayerState."""
        self._other.expect(q_HD)

    @property
    def selection(self) -> Selection:
        """See LayerState."""
        return self._other.selection

    def work(self) -> Work:
        """See LayerState."""
        return self._other.work()

    def memory(self) -> dict[str, int]:
        """See LayerState."""
        return self._other.memory()

    def fork(self) -> Self:
        """See LayerState; to be done before it becomes anything."""
        twin = super().fork()
        twin._queries = None if self._queries is None else self._queries.fork()
        return twin

    @property
    def _other(self) -> LayerState:
        if self._self is None:
            self.become(Full())
        assert self._self is not None
        return self._self


def adopted(
    method: Method,
    geometry: LayerGeometry,
    kv_GTDs: tuple[Tensor, Tensor],
    queries_HSD: Tensor | None,
) -> LayerState:
    """A sealed state of `method` over a prompt that was attended elsewhere."""
    state = method.layer(geometry)
    if not isinstance(state, StoredState):
        raise ValueError(f"method = {method.name}: its states cannot take over a prompt")
    state.adopt(*kv_GTDs, queries_HSD)
    state.seal()
    return state


def branch(session: Session, method: Method) -> Session:
    """A session of `Once` that goes on as `method`; the given one stays as it is."""
    twin = session.fork(1)
    for states in twin.states:
        for state in states:
            assert isinstance(state, OnceState)
            state.become(method)
    return twin
