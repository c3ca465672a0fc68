"""Problems that are answered at length and several times: what AIME, MATH-500 and GPQA share."""

from __future__ import annotations

from abc import abstractmethod
from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import model_validator

from longspan.options import Count, Number, Tokens, settings
from longspan.tasks.answers import opens_thought, thought_is_open
from longspan.tasks.base import BORDER, Task, rendered
from longspan.tasks.files import file_sha256
from longspan.tasks.lengths import count_tokens, overhead_tokens, seam_tokens, uses_template
from longspan.tasks.prompts import PromptStyle, styled
from longspan.tasks.rows import hub_rows, read_rows, unique
from longspan.tasks.sampling_metrics import Outcome, default_ks, sampling_metrics

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from longspan.tasks.base import Tokenizer
    from longspan.tasks.rows import Placed, Row
    from longspan.types import Example, Record


@settings
class Reasoning(Task):
    """Settings and metrics; the subclasses know the rows and the answers."""

    chooses: ClassVar[tuple[str, ...]] = ("start", "pass_k", "n_sampling")

    path: str | None = None
    """A .jsonl, .json, .csv or .parquet file; None: the data set `hub` of the Hugging Face hub."""
    hub: str
    hub_config: str | None = None
    split: str = "train"
    n_sampling: Number = 8
    """Answers to each problem: more go on from those recorded, fewer take the first of them."""
    pass_k: list[Count] | None = None
    """The k of pass@k; None: 2, 4, 8, ... up to n_sampling."""
    start: Tokens = 0
    """Index of the first problem; with the number of samples it makes a shard."""
    prefix: str = ""
    """What the model's turn begins with, such as "<think>" and a newline."""
    thinking: bool | None = None
    """Whether each answer begins inside a thought that `</think>` ends (true for models whose
    template opens it); null: where the template, the prefix or the text opens one."""
    max_new_tokens: Count = 32768
    prompt_style: PromptStyle = "auto"

    @model_validator(mode="after")
    def _k_is_possible(self) -> Self:
        for k in self.pass_k or []:
            if k > self.n_sampling:
                raise ValueError(
                    f"task.pass_k = {self.pass_k}: {k} is more than n_sampling={self.n_sampling}"
                )
        return self

    @property
    def samples_per_example(self) -> int:
        """n_sampling."""
        return self.n_sampling

    @abstractmethod
    def problem(self, row: Row, where: str, index: int, seed: int) -> Example:
        """The example of a row, without regard to lengths; ValueError names `where` and a field."""

    @abstractmethod
    def outcome(self, record: Record) -> tuple[str | None, bool]:
        """(the extracted answer, whether it ended inside a thought) of a stored answer."""

    @abstractmethod
    def same(self, answer: str, other: str) -> bool:
        """Whether two extracted answers are one vote."""

    @property
    @abstractmethod
    def how_to_get(self) -> str:
        """A sentence: what to do where the hub cannot be reached."""

    def examples(
        self, tokenizer: Tokenizer, context_tokens: int | None, count: int | None, seed: int
    ) -> Sequence[Example]:
        """Problems `start` to `start + count` in the order of the file. Where the context is
        shorter than prompt and `max_new_tokens`, the answer gets what is left: meta["answer_room"].
        """
        rows = self._rows()
        if self.start >= len(rows):
            raise ValueError(f"task.start={self.start}: the data set has {len(rows)} problems")
        stop = len(rows) if count is None else min(len(rows), self.start + count)
        problems = [
            self.problem(row, place, self.start + number, seed)
            for number, (place, row) in enumerate(rows[self.start : stop])
        ]
        unique(problems, self.hub if self.path is None else f"task.path={self.path}")
        return [self._fitted(example, tokenizer, context_tokens) for example in problems]

    def _rows(self) -> list[Placed]:
        if self.path is None:
            return hub_rows(self.hub, self.hub_config, self.split, self.how_to_get)
        return read_rows(self.path)

    def _fitted(self, example: Example, tokenizer: Tokenizer, ctx: int | None) -> Example:
        context, question = styled(example.context, example.question, self.prompt_style)
        chat = self.prompt_style == "auto"
        answer = self.max_new_tokens
        if ctx is not None:
            used = count_tokens(tokenizer, context + question + self.prefix)
            room = ctx - used - overhead_tokens(tokenizer, chat)
            room -= seam_tokens(tokenizer, self.prompt_style)
            if room < 1:
                raise ValueError(
                    f"ctx={ctx}: problem {example.id} needs {ctx - room} "
                    "tokens before its answer; must be larger"
                )
            answer = min(answer, room)
        less = {"answer_room": answer} if answer < self.max_new_tokens else {}
        begun = {"in_thought": True} if self._begins_in_thought(tokenizer, chat) else {}
        return replace(
            example,
            context=context,
            question=question,
            prefix=self.prefix,
            chat=chat,
            max_new_tokens=answer,
            meta={**example.meta, **less, **begun},
        )

    def _begins_in_thought(self, tokenizer: Tokenizer, chat: bool) -> bool:
        """Whether template and prefix open a thought; False where `thinking` says it."""
        if self.thinking is not None:
            return False
        template = rendered(tokenizer, BORDER) if uses_template(tokenizer, chat) else ""
        return opens_thought(template.rpartition(BORDER)[2] + self.prefix)

    def thought_open(self, text: str, meta: Mapping[str, Any]) -> bool:
        """Whether an answer ended before its thoughts did, by its example's meta; then it says
        nothing.
        """
        begun = meta.get("in_thought") if self.thinking is None else self.thinking
        return thought_is_open(text, begun)

    def aggregate(self, records: Sequence[Record]) -> Mapping[str, float]:
        """avg@n, pass@k, maj@n with standard errors over problems; unfinished (cut by the length,
        or ended inside a thought) and unparsed rates. All in percent.
        """
        problems: dict[str, list[Outcome]] = defaultdict(list)
        for record in sorted(records, key=lambda record: record.sample):
            answer, inside = self.outcome(record)
            finished = record.finish != "length" and not inside
            problems[record.id].append(Outcome(record.score >= 50, answer, finished))
        ks = default_ks(self.n_sampling) if self.pass_k is None else self.pass_k
        return sampling_metrics(problems, self.n_sampling, ks, self.same)

    def identity(self) -> Mapping[str, Any]:
        """The file's hash, or the data set's name on the hub."""
        if self.path is None:
            return {"data": f"hub:{self.hub}/{self.hub_config}/{self.split}"}
        return {"data": file_sha256(self.path)}
