"""What a model is: it reads token rows with full attention and continues them by a method."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import torch
    from torch import Tensor

    from longspan.methods.base import LayerState, Method
    from longspan.models.prompts import Prompts as Prompts
    from longspan.prefill.base import Prefill
    from longspan.tasks.base import Tokenizer
    from longspan.types import Example, LayerGeometry, Partial


class Observer(Protocol):
    """Called after a decode step of one layer and row; only the recall pass has one."""

    def __call__(
        self, layer: int, row: int, state: LayerState, q_HD: Tensor, partial: Partial
    ) -> None:
        """See what was attended; must not change it. `row` counts in the session that decodes.
        `layer` is the model's own number of the layer.
        """


class Session(ABC):
    """B sequences that one method reads and continues; K and V live in its layer states only.

    What an error or Ctrl-C leaves half-read is refused with a RuntimeError from then on.
    """

    observer: Observer | None

    @abstractmethod
    def prefill(
        self, rows: Sequence[Sequence[int]], progress: Callable[[int], None] | None = None
    ) -> Tensor:
        """Read the rows (ragged; [] leaves a row as it is) with the session's prefill, seal, and
        return logits_BV float32.

        `progress` gets the number of tokens read so far, of the longest row. A row left as it is
        keeps the logits it had. ValueError for a row that has never read a token, and beyond
        `max_tokens`.
        """

    @abstractmethod
    def decode(self, tokens: Sequence[int]) -> Tensor:
        """Give every row one more token through the method; returns logits_BV float32."""

    @abstractmethod
    def logits_after(self, row: int, tokens: Sequence[int]) -> Iterator[Tensor]:
        """Logits [V] float32 after each of `tokens`, had this row read them with full attention
        from here on; the session stays as it is and may go on meanwhile.
        """

    @abstractmethod
    def record(self) -> None:
        """Keep, from here on, what `decode` stores, for `recorded`; forks begin without."""

    @abstractmethod
    def recorded(self, row: int) -> bytes:
        """A block: what `decode` stored of a row since the last call; empty where none is kept."""

    @abstractmethod
    def replay(self, row: int, tokens: int, block: bytes) -> None:
        """Store the `tokens` tokens of a block as `decode` did, without running the model.

        Logits stay those of before; a walk of a graph that would have begun where the last step's
        ended begins anew. ValueError for a block that is not of so many tokens.
        """

    @abstractmethod
    def fork(self, copies: int) -> Session:
        """A session in which every row is repeated `copies` times; what is sealed is shared."""

    @abstractmethod
    def select(self, rows: Sequence[int]) -> Session:
        """A view of the named rows: both sessions go on with the same states, so a ragged batch can
        be fed in parts.
        """

    @property
    @abstractmethod
    def states(self) -> Sequence[Sequence[LayerState]]:
        """states[layer][row], without the layers that the method does not own (sliding windows)."""

    @property
    @abstractmethod
    def lengths(self) -> Sequence[int]:
        """Tokens read so far, by row."""

    @property
    @abstractmethod
    def steps_by(self) -> str:
        """How the last decode step was taken, of which its time depends more than its result:
        `states`, one by one; `buffers` of fixed shape, all rows at once; or their CUDA `graph`; `33
        graphs` where there is other work between.
        """


NOT_FINITE = "the model's logits are not finite; model.dtype=bfloat16 may help"
"""What a FloatingPointError says."""


class Model(ABC):
    """A loaded decoder."""

    name: str
    tokenizer: Tokenizer
    eos_ids: frozenset[int]
    max_positions: int | None
    stretches: bool = False
    """Whether `model.config.rope_parameters` can take the positions further."""
    dtype: torch.dtype
    device: torch.device
    layers: int
    """Of the decoder, those with sliding windows included."""
    chunk_tokens: int
    """Of a prompt, counted from its beginning, those read at once: under a sparse prefill they are
    part of what a row answers, and of a run's fingerprint.
    """
    geometries: tuple[LayerGeometry, ...]
    """The layers that the method owns, in the order of `Session.states`."""

    @abstractmethod
    def session(
        self,
        method: Method,
        rows: int = 1,
        max_tokens: int | None = None,
        prefill: Prefill | None = None,
        context_tokens: int | None = None,
        prompts: Prompts | None = None,
    ) -> Session:
        """An empty session for `rows` sequences of at most `max_tokens` tokens each, prompt and
        answer together. `prefill` is how prompts are attended; None: in full. `prompts`: those
        that need not be read again, where they are attended in full.

        A prompt must fit the model's positions in any case; an answer may leave them where
        `max_tokens` says so, as timing does, unless they are a table (GPT-2). Models whose rotary
        frequencies depend on the length (longrope, dynamic NTK) take those of `context_tokens`,
        whatever is read; None: of all their positions.
        """

    @abstractmethod
    def encode(self, example: Example) -> tuple[list[int], list[int]]:
        """Token ids of (context, question with prefix), chat template applied; their concatenation
        is the prompt.

        The context has at least one token wherever the prompt has; the question may have none.
        """

    @abstractmethod
    def encode_answer(self, example: Example) -> list[int]:
        """Token ids of the reference answer, to be fed behind the prompt: where the example is
        `forced`, those that the whole text has beyond the prompt's.
        """

    @abstractmethod
    def identity(self) -> Mapping[str, Any]:
        """What identifies the weights and the template; enters the fingerprint. JSON types only."""
