"""The score pass: read, answer, score. Nothing is observed and nothing timed.

An example that is forced is not answered: its reference is fed to the model, and its score is the
geometric mean of the probabilities that the model gives to the reference's tokens, in percent.
"""

from __future__ import annotations

import math
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from longspan.measures.answers import Answer, context_id, go_on
from longspan.measures.reading import Prompt, Reader, batches
from longspan.types import Record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import Tensor

    from longspan.measures.answers import Job
    from longspan.measures.base import Growing, Subject, Taught, Voice
    from longspan.methods.base import LayerState
    from longspan.models.base import Session
    from longspan.tasks.base import Task
    from longspan.types import Example


class Quality:
    """The score pass of one run."""

    def __init__(
        self,
        subject: Subject,
        task: Task,
        voice: Voice,
        *,
        batch: int = 1,
        seed: int = 0,
        keep: bool = False,
    ) -> None:
        self.subject, self.task, self.voice = subject, task, voice
        self.batch, self.seed = batch, seed
        self.keep = keep
        """Whether `Answer.stored` has anything."""

    def __call__(
        self,
        jobs: Sequence[Job],
        growing: Callable[[Sequence[Answer]], None] | None = None,
    ) -> Iterator[Record]:
        """A record for every wanted answer, as soon as it is complete.

        `growing` is called after every token with the answers that are not.
        """
        reader = Reader(self.subject)
        for chunk, prompts, room in batches(jobs, context_id, self._prompt, self.batch):
            yield from self._answer_all(chunk, prompts, reader(prompts, room), growing)

    def _prompt(self, job: Job) -> Prompt:
        limit, lesson = self.voice.limit(job.example), None
        if job.example.forced:
            lesson = self.subject.model.encode_answer(job.example)[:limit]
            limit = len(lesson)
        prompt = self.subject.encode(job.example, limit)
        return Prompt(*prompt, limit, context_id(job), lesson)

    def _answer_all(
        self,
        jobs: Sequence[Job],
        prompts: Sequence[Prompt],
        read: tuple[Session, Tensor],
        growing: Callable[[Sequence[Answer]], None] | None,
    ) -> Iterator[Record]:
        session, logits_BV, answers = self._open(jobs, prompts, *read)
        row_of = {id(answer.stream): row for row, answer in enumerate(answers)}
        streams, most = [answer.stream for answer in answers], max(each.limit for each in prompts)
        for grown in self.voice.generate(session, logits_BV, streams):
            alive = [answers[row_of[id(stream)]] for stream in grown]
            for answer in alive:
                if answer.stream.finish is not None:
                    row = row_of[id(answer.stream)]
                    yield self._record(answer, [layer[row] for layer in session.states])
            self.subject.decoded(max(len(stream.tokens) for stream in grown), most)
            if growing is not None:
                begun = [answer for answer in alive if answer.stream.finish is None]
                growing([answer for answer in begun if not answer.job.example.forced])

    def _open(
        self,
        jobs: Sequence[Job],
        prompts: Sequence[Prompt],
        session: Session,
        logits_BV: Tensor,
    ) -> tuple[Session, Tensor, list[Answer]]:
        """Fork what was read for its answers; go on where begun answers stopped."""
        copies = max(len(job.samples) for job in jobs)
        if copies > 1:
            session = session.fork(copies)
            rows = [r * copies + c for r, job in enumerate(jobs) for c in range(len(job.samples))]
            logits_BV = logits_BV.repeat_interleave(copies, dim=0)[rows]
            session = session if len(rows) == len(jobs) * copies else session.select(rows)
        if self.keep and not all(job.example.forced for job in jobs):
            session.record()
        wanted = [
            (job, sample, prompt)
            for job, prompt in zip(jobs, prompts, strict=True)
            for sample in job.samples
        ]
        answers = [
            Answer(
                job, sample, self._stream(job, sample, prompt), len(prompt),
                partial(session.recorded, row),
            )
            for row, (job, sample, prompt) in enumerate(wanted)
        ]  # fmt: skip
        return session, go_on(session, logits_BV, answers), answers

    def _stream(self, job: Job, sample: int, prompt: Prompt) -> Growing:
        begun = job.begun.get(sample)
        facts: dict[str, Any] = {
            "prompt_tokens": len(prompt),
            "max_new_tokens": prompt.limit,
            "key": f"{job.example.id}/{sample}",
        }
        if prompt.lesson is not None:
            return self.voice.taught(**facts, lesson=prompt.lesson)
        tokens = [] if begun is None else list(begun.tokens)
        return self.voice.stream(**facts, stop=job.example.stop, tokens=tokens)

    def _record(self, answer: Answer, layers: Sequence[LayerState]) -> Record:
        example, stream = answer.job.example, answer.stream
        text, score, found = self._judged(example, stream)
        begun = answer.job.begun.get(answer.sample)
        resumed = {} if begun is None else {"resumed_tokens": len(begun.tokens)}
        if begun is not None and begun.blocks is None:
            resumed["reread_tokens"] = len(begun.tokens)
        # the first token behind what is read like a prompt takes no decode step
        stepped = len(stream.tokens) - resumed.get("reread_tokens", 0) > 1
        return Record(
            id=example.id,
            sample=answer.sample,
            prediction=self.task.stored(example, text),
            references=example.references,
            score=score,
            prompt_tokens=answer.prompt_tokens,
            new_tokens=len(stream.tokens),
            finish=str(stream.finish),
            seed=self.seed,
            work=last_work(layers) if stepped else {},
            meta={**example.meta, **found, **resumed},
        )

    def _judged(self, example: Example, stream: Growing) -> tuple[str, float, dict[str, Any]]:
        """What is kept as the prediction, its score, and what else is found."""
        tokenizer = self.subject.model.tokenizer
        if not example.forced:
            text = stream.text(tokenizer)
            return text, _fair(self.task.score(example, text), self.task.label), {}
        taught = cast("Taught", stream)
        nats, pairs = math.fsum(taught.nats), zip(taught.tokens, taught.likeliest, strict=True)
        found = {
            "nats": nats,
            "right_tokens": sum(one == other for one, other in pairs),
            "scored_bytes": len(stream.text(tokenizer).encode()),
        }
        score = 100 * math.exp(-nats / len(taught.nats))
        return tokenizer.decode(taught.likeliest, skip_special_tokens=True), score, found


def _fair(score: Any, label: str) -> float:
    """A task's score as records keep it; ValueError for one that no interval could be put around,
    as a truth value, which would count for a hundredth.
    """
    number = score.item() if hasattr(score, "item") else score
    known = isinstance(number, int | float) and not isinstance(number, bool)
    if not known or not 0 <= round(number, 6) <= 100:
        raise ValueError(f"task: {label} scores {score!r}; right would be a number from 0 to 100")
    return float(number)


def last_work(layers: Sequence[LayerState]) -> dict[str, float]:
    """What the last decode step of one sequence cost: token counts and distances as means over
    layers, bytes as sums; `context_tokens` is what full attention would have read.
    """
    works = [asdict(state.work()) for state in layers]
    if not works:
        return {}
    total = {name: sum(work[name] for work in works) for name in works[0]}
    mean = {
        name: value if name.endswith("_bytes") else value / len(works)
        for name, value in total.items()
    }
    return {**mean, "context_tokens": float(len(layers[0].store))}
