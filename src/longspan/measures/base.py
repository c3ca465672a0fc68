"""What the passes share: how an example is read, and what they are given by the runner."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import Tensor

    from longspan import types
    from longspan.methods.base import Method
    from longspan.models.base import Model, Prompts, Session
    from longspan.prefill.base import Prefill
    from longspan.tasks.base import Tokenizer


class Growing(Protocol):
    """The answer of one row as it grows."""

    tokens: list[int]
    finish: Literal["eos", "stop", "length"] | None

    def text(self, tokenizer: Tokenizer) -> str:
        """The answer so far."""


class Taught(Growing, Protocol):
    """A given text in place of an answer, with what the model thinks of it."""

    nats: list[float]
    """By token, -log p."""
    likeliest: list[int]


@dataclass(frozen=True, kw_only=True)
class Voice:
    """How answers are grown; a session and its logits go in, the grown rows come out step by
    step.
    """

    stream: Callable[..., Growing]
    taught: Callable[..., Taught]
    generate: Callable[[Session, Tensor, Sequence[Growing]], Iterator[Sequence[Growing]]]
    max_new_tokens: int | None = None
    """None: what the example says."""

    def limit(self, example: types.Example) -> int:
        """How many tokens an answer may have."""
        return self.max_new_tokens or example.max_new_tokens


class Lesson(NamedTuple):
    """What a session is fed, whatever it would say."""

    tokens: list[int]
    """Of the reference answer, repeated where it is short."""
    own: int
    """How many of them come before it repeats."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What is measured: a model, read through a method, under a protocol."""

    model: Model
    method: Method
    protocol: types.Protocol
    prefill: Prefill | None = None
    """How prompts are attended; None: in full."""
    context_tokens: int | None = None
    """The run's, not an example's or a pass's: where rotary frequencies depend on a length, it is
    this. None: the model's positions.
    """
    prompts: Prompts | None = None
    """Those that need not be read again, under a `prefill` in full; or, put aside, what makes room
    where reading needs it.
    """
    tell: Callable[[str, int, int | None], Any] | None = None
    """Gets what is going on, how much of it is done, and of how much."""

    def read_so_far(self, tokens: int) -> None:
        """Tell of a prompt."""
        if self.tell is not None:
            self.tell("reading the prompt", tokens, self.context_tokens)

    def decoded(self, tokens: int, most: int) -> None:
        """Tell of what follows it."""
        if self.tell is not None:
            self.tell("decoding", tokens, most)

    def encode(self, example: types.Example, new_tokens: int) -> tuple[list[int], list[int]]:
        """Token ids of (context, question). Raises ValueError where they and `new_tokens` more are
        beyond the model's positions.
        """
        context, question = self.model.encode(example)
        total, most = len(context) + len(question) + new_tokens, self.model.max_positions
        if most is not None and total > most:
            raise ValueError(
                f"ctx: example {example.id} has {len(context) + len(question)} tokens and may "
                f"answer with {new_tokens}, but {self.model.name} has {most} positions; right "
                "would be a smaller ctx or generation.max_new_tokens, shorter data or another model"
            )
        return context, question

    def open(self, rows: int, max_tokens: int) -> Session:
        """An empty session."""
        return self.model.session(
            self.method, rows, max_tokens, self.prefill, self.context_tokens, self.prompts
        )

    def read(
        self, prompts: Sequence[tuple[Sequence[int], Sequence[int]]], new_tokens: int
    ) -> tuple[Session, Tensor]:
        """A session that has read the prompts (context, question), and its logits [B, V]."""
        session, logits_BV, unread = self.begin(prompts, new_tokens)
        return session, feed(session, logits_BV, unread)

    def begin(
        self, prompts: Sequence[tuple[Sequence[int], Sequence[int]]], new_tokens: int
    ) -> tuple[Session, Tensor, Sequence[Sequence[int]]]:
        """`read` up to where the method takes part: what is still to go through it, token by token,
        is the questions under question_sparse and else nothing.
        """
        rows = [[*context, *question] for context, question in prompts]
        session = self.open(len(rows), max(map(len, rows)) + new_tokens)
        if self.protocol == "question_dense":
            return session, session.prefill(rows, self.read_so_far), [[] for _ in rows]
        logits_BV = session.prefill([context for context, _ in prompts], self.read_so_far)
        return session, logits_BV, [question for _, question in prompts]

    def lesson(self, example: types.Example, steps: int) -> Lesson:
        """`steps` tokens; none where the reference answer has none."""
        ids = self.model.encode_answer(example)
        tokens = (ids * -(-steps // len(ids)))[:steps] if ids else []
        return Lesson(tokens, min(len(ids), steps))


def feed(session: Session, logits_BV: Tensor, rows: Sequence[Sequence[int]]) -> Tensor:
    """Give every row its tokens through the method, one at a time; rows may differ in length.

    Returns the logits [B, V] after each row's last token.
    """
    logits_BV = logits_BV.clone()
    for step in range(max(len(row) for row in rows)):
        open_rows = [number for number, row in enumerate(rows) if step < len(row)]
        view = session if len(open_rows) == len(rows) else session.select(open_rows)
        logits_BV[open_rows] = view.decode([rows[number][step] for number in open_rows])
    return logits_BV
