"""What a model is: it reads token rows with full attention and continues them by a method."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import torch
    from torch import Tensor

    from longspan.methods.base import LayerState, Method
    from longspan.tasks.base import Tokenizer
    from longspan.types import Example, Partial


class Observer(Protocol):
    """Called after a decode step of one layer and row; only the recall pass has one."""

    def __call__(
        self, layer: int, row: int, state: LayerState, q_HD: Tensor, partial: Partial
    ) -> None:
        """See what was attended; must not change it."""


class Session(ABC):
    """B sequences that one method reads and continues; K and V live in its layer states only."""

    @abstractmethod
    def prefill(
        self, rows: Sequence[Sequence[int]], progress: Callable[[int], None] | None = None
    ) -> Tensor:
        """Read the rows (ragged; [] leaves a row as it is) with full attention, seal, and return
        logits_BV float32.

        `progress` gets the number of tokens read so far, of the longest row.
        """

    @abstractmethod
    def decode(self, tokens: Sequence[int]) -> Tensor:
        """Give every row one more token through the method; returns logits_BV float32."""

    @abstractmethod
    def fork(self, copies: int) -> Session:
        """A session in which every row is repeated `copies` times; what is sealed is shared."""

    @abstractmethod
    def select(self, rows: Sequence[int]) -> Session:
        """A session of the named rows only (the finished ones are dropped)."""

    @property
    @abstractmethod
    def states(self) -> Sequence[Sequence[LayerState]]:
        """states[layer][row]; layers that the method does not own (sliding windows) are absent."""

    observer: Observer | None


class Model(ABC):
    """A loaded decoder."""

    name: str
    tokenizer: Tokenizer
    eos_ids: frozenset[int]
    max_positions: int | None
    dtype: torch.dtype
    device: torch.device

    @abstractmethod
    def session(self, method: Method, rows: int = 1) -> Session:
        """An empty session for `rows` sequences."""

    @abstractmethod
    def encode(self, example: Example) -> tuple[list[int], list[int]]:
        """Token ids of (context, question with prefix), chat template applied; their concatenation
        is the prompt.
        """

    @abstractmethod
    def identity(self) -> Mapping[str, Any]:
        """What identifies the weights and the template; enters the fingerprint. JSON types only."""
