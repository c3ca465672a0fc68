"""The answers of the score pass, wanted and begun, and how those begun go on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from longspan.measures.base import feed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from torch import Tensor

    from longspan.measures.base import Growing
    from longspan.models.base import Session
    from longspan.types import Example


@dataclass(frozen=True, slots=True)
class Begun:
    """An answer that a stopped run had begun."""

    tokens: Sequence[int]
    blocks: Callable[[], Iterator[tuple[int, bytes]]] | None = None
    """What the model stored of all but the last token, as (tokens, block of Session.recorded); None
    where it has to read them again.
    """


@dataclass(frozen=True, slots=True)
class Job:
    """An example and the answers of it that are still wanted."""

    example: Example
    samples: tuple[int, ...]
    begun: Mapping[int, Begun] = field(default_factory=dict)
    """By sample."""


def context_id(job: Job) -> str | None:
    """What the examples of one context have in common; None for an example of its own."""
    shared = job.example.meta.get("context_id")
    return None if shared is None else str(shared)


@dataclass(frozen=True, slots=True)
class Answer:
    """One row of a batch."""

    job: Job
    sample: int
    stream: Growing
    prompt_tokens: int
    stored: Callable[[], bytes]
    """What the model stored of it since the last call, where that is kept."""


def go_on(session: Session, logits_BV: Tensor, answers: Sequence[Answer]) -> Tensor:
    """Bring the rows of begun answers to where they stopped; the logits [B, V] there.

    What the model had stored is stored again as it was, and the last token decoded. Where only the
    tokens are known they are read like a prompt, by its prefill.
    """
    last: list[Sequence[int]] = [[] for _ in answers]
    unread: list[Sequence[int]] = [[] for _ in answers]
    for row, answer in enumerate(answers):
        begun = answer.job.begun.get(answer.sample)
        if begun is None:
            continue
        if begun.blocks is None:
            unread[row] = begun.tokens
            continue
        for tokens, block in begun.blocks():
            session.replay(row, tokens, block)
        last[row] = begun.tokens[-1:]
    if any(unread):
        logits_BV = session.prefill(unread)
    return feed(session, logits_BV, last) if any(last) else logits_BV
