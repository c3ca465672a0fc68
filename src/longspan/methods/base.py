"""What a method is: settings that open the state of one layer of one sequence."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

from longspan.types import StepBytes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from longspan.methods.prompt import LayerPrompt
    from longspan.placement.base import Place
    from longspan.placement.store import KVStore
    from longspan.prefill.base import Prefill
    from longspan.types import LayerGeometry, Partial, Selection, Work


class LayerState(ABC):
    """One layer of one sequence: its keys and values, its index, and how a query reads them.

    The life of a state: `prefill` for each chunk of the prompt, `seal` when the prompt is complete,
    then `append` and
    `decode` for each new token; a further turn goes back to `prefill`. Tokens given here are real
    ones, never padding.
    """

    store: KVStore
    prefill_by: Prefill
    """How `prefill` attends; whoever opens the state may replace it."""

    @abstractmethod
    def prefill(self, q_HQD: Tensor, k_GQD: Tensor, v_GQD: Tensor) -> Partial:
        """Store the chunk and attend it causally, together with everything stored before, as
        `prefill_by` does: out [H, Q, D], lse [H, Q].
        """

    def takes_over(self, prompt: LayerPrompt) -> bool:
        """Whether `take_over` leaves it, to the last bit, as reading the prompt in full would."""
        return False

    def take_over(self, prompt: LayerPrompt) -> None:
        """Store a whole prompt in place of `prefill`; where empty and `takes_over`."""
        raise TypeError(f"{type(self).__name__} has to read its prompts itself")

    @abstractmethod
    def read_in_full(self) -> None:
        """Have `prefill` attend everything exactly from here on, as it does where nobody has
        replaced `prefill_by`.
        """

    @abstractmethod
    def seal(self) -> None:
        """The prompt is complete: build or extend the index. Calling it twice changes nothing."""

    @abstractmethod
    def append(self, k_GD: Tensor, v_GD: Tensor) -> None:
        """Store one generated token; the index may absorb older ones."""

    @abstractmethod
    def decode(self, q_HD: Tensor) -> Partial:
        """Attend everything stored, as the method reads it: out [H, D] float32, lse [H] float32."""

    @property
    def remembers(self) -> bool:
        """Whether queries leave a trace; then `remember` stands for a `decode` that is left out."""
        return False

    def remember(self, q_HD: Tensor) -> None:
        """Learn of the query of a token that was appended and will not be decoded again; where
        `remembers`.
        """
        raise TypeError(f"{type(self).__name__} learns of no queries")

    @property
    def expects(self) -> bool:
        """Whether the next `decode` goes by a guess of its query, if it is given one."""
        return False

    def expect(self, q_HD: Tensor) -> None:  # noqa: B027
        """About the query of the next `decode`, whose token is yet to be appended; told only
        where `expects`.
        """

    @abstractmethod
    def fork(self) -> LayerState:
        """A second state that goes on from here; what is sealed is shared, not copied."""

    def join(self, below: LayerState) -> None:
        """Share with the state of the layer below what layers of one sequence may share; before
        anything is decoded, and again after both were forked.
        """
        del below

    def prefetch(self) -> None:  # noqa: B027
        """Bring near what the next step is likely to read; after all layers were sealed or forked,
        layer by layer.
        """

    @property
    @abstractmethod
    def selection(self) -> Selection:
        """What the last `decode` attended. RuntimeError before the first."""

    @abstractmethod
    def work(self) -> Work:
        """What the last `decode` cost."""

    @abstractmethod
    def memory(self) -> dict[str, int]:
        """Bytes held now: `kv_bytes` and `index_bytes`."""


class StaticLayer(ABC):
    """A layer of several rows in buffers whose shapes never change, so that a step can be captured
    in a CUDA graph: it waits for nothing, and no shape depends on data.

    The rows' states are told of what was stored when they are settled.
    """

    expects: bool = False
    """Whether it goes by guesses of its queries, as states may."""

    def expect(self, q_BHD: Tensor) -> None:  # noqa: B027
        """About the queries of the next `step`; told only where it `expects`."""

    def prefetch(self) -> None:  # noqa: B027
        """See LayerState; before the first step."""

    @abstractmethod
    def step(self, q_BHD: Tensor, k_BGD: Tensor, v_BGD: Tensor, at_B: Tensor) -> Partial:
        """Store a token a row and attend, as the method does: out [B, H, D], lse [B, H].

        at_B (int64): how many tokens the row holds. Doing it again with the same numbers changes
        nothing, so a row that rests is given any token.
        """

    @abstractmethod
    def update(self, lengths: Sequence[int], decoding: Sequence[int]) -> None:
        """What must happen outside a step, before the rows of these numbers get their next token
        and the others rest.
        """

    @abstractmethod
    def abandon(self) -> None:
        """The step after the last `update` did not come to its end; the next one may."""

    @abstractmethod
    def settle(self, lengths: Sequence[int]) -> None:
        """Bring the rows' states to where the steps are; they lie in these buffers."""

    @abstractmethod
    def release(self) -> None:
        """The rows, which have been settled, go on without steps."""


class Method(ABC):
    """The settings of a method; subclasses are `@settings` classes, registered by a yaml in
    conf/method.
    """

    name: ClassVar[str]

    @abstractmethod
    def layer(self, geometry: LayerGeometry) -> LayerState:
        """An empty state for one layer of one sequence."""

    @property
    def place(self) -> Place:
        """Where keys and values go, by those settings that a method has."""
        from longspan.placement.base import Place

        names = (name for name in Place.__slots__ if hasattr(self, name))
        return Place(**{name: getattr(self, name) for name in names})

    @property
    def guesses(self) -> bool:
        """Whether its states may expect guesses of their queries."""
        return False

    def static_obstacle(self, geometry: LayerGeometry) -> str | None:
        """Why `static_layer` has nothing to offer for this layer; None if it has."""
        return f"method {self.name!r} has no decode step of fixed shapes"

    def static_bytes(
        self, geometry: LayerGeometry, held: Sequence[int], limits: Sequence[int]
    ) -> StepBytes:
        """Of the `static_layer` of rows that hold so many tokens, where that is more than keys and
        values.
        """
        return StepBytes()

    def static_layer(self, states: Sequence[LayerState], limits: Sequence[int]) -> StaticLayer:
        """The rows' states of a layer in buffers for so many tokens of each."""
        raise TypeError(f"{type(self).__name__} has no decode step of fixed shapes")

    def decode(self, states: Sequence[LayerState], q_BHD: Tensor) -> Partial:
        """One step of a batch, one state a row; override where a batch can be attended natively."""
        import torch

        from longspan_kernels.types import Partial

        parts = [state.decode(q_HD) for state, q_HD in zip(states, q_BHD, strict=True)]
        return Partial(torch.stack([p.out for p in parts]), torch.stack([p.lse for p in parts]))
