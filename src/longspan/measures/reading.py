"""Reading prompts: each on its own, or a context once for all questions on it."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby, islice
from typing import TYPE_CHECKING, TypeVar

from longspan.measures.base import feed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from torch import Tensor

    from longspan.measures.base import Subject
    from longspan.models.base import Session

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Prompt:
    """The token ids of an example, and how many tokens its answer may have."""

    context: list[int]
    question: list[int]
    limit: int
    context_id: str | None = None
    """Examples of one context, which is read once; None for an example of its own."""
    lesson: list[int] | None = None
    """What is fed in place of an answer."""

    def __len__(self) -> int:
        return len(self.context) + len(self.question)

    @property
    def shared(self) -> tuple[str, list[int]] | None:
        """What prompts that share a reading have in common."""
        return None if self.context_id is None else (self.context_id, self.context)


def batches(
    jobs: Iterable[T],
    context_of: Callable[[T], str | None],
    encode: Callable[[T], Prompt],
    size: int,
) -> Iterator[tuple[list[T], list[Prompt], int]]:
    """(jobs read together, their prompts, tokens that the longest of their context needs): `size`
    at most, and never of two contexts.

    Jobs of their own are encoded when their turn comes, those of one context together.
    """
    for context_id, group in groupby(jobs, key=context_of):
        if context_id is None:
            while chunk := list(islice(group, size)):
                prompts = [encode(job) for job in chunk]
                yield chunk, prompts, max(len(prompt) + prompt.limit for prompt in prompts)
            continue
        pairs = [(job, encode(job)) for job in group]
        # a token across the border may set one question's context apart from the others'
        for _, alike in groupby(pairs, key=lambda pair: pair[1].context):
            together = list(alike)
            room = max(len(prompt) + prompt.limit for _, prompt in together)
            for start in range(0, len(together), size):
                chunk, prompts = map(list, zip(*together[start : start + size], strict=True))
                yield chunk, prompts, room


class Reader:
    """Reads batches; keeps the last shared context for the next questions on it."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self._held: tuple[tuple[str, list[int]], Session] | None = None

    def __call__(self, prompts: Sequence[Prompt], room: int) -> tuple[Session, Tensor]:
        """A session of a row a prompt, and its logits [B, V].

        A shared context is read and indexed first, the question after it as a further turn: so the
        answers do not depend on which questions are asked together.
        """
        shared = prompts[0].shared
        if shared is None:
            self._held = None
            pairs = [(prompt.context, prompt.question) for prompt in prompts]
            return self.subject.read(pairs, max(prompt.limit for prompt in prompts))
        if self._held is None or self._held[0] != shared:
            self._held = None  # before the next one needs the memory
            context = self.subject.open(1, room)
            context.prefill([prompts[0].context], self.subject.read_so_far)
            self._held = (shared, context)
        session = self._held[1].fork(len(prompts))
        questions = [prompt.question for prompt in prompts]
        if self.subject.protocol == "question_dense":
            return session, session.prefill(questions)
        logits_BV = session.prefill([[] for _ in prompts])
        return session, feed(session, logits_BV, questions)
