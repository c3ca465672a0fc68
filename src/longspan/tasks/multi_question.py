"""Several questions on one context, which a model then needs to read only once.

The file is a list (or .jsonl) of {context, questions}; each question is {question, outputs}.
SQuAD's own files are read too, but for the questions that cannot be answered. Examples of one
context are consecutive, have the same `context` to the letter and the same meta["context_id"].
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import model_validator

from longspan.options import Count, settings
from longspan.tasks.averages import with_interval
from longspan.tasks.base import Task
from longspan.tasks.files import file_sha256
from longspan.tasks.lengths import count_tokens, overhead_tokens
from longspan.tasks.matching import Match, substring_score
from longspan.tasks.prompts import PromptStyle, styled
from longspan.tasks.references import references
from longspan.tasks.rows import field, read_rows, text_field, text_sha256
from longspan.types import Example

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from longspan.tasks.base import Tokenizer
    from longspan.tasks.rows import Placed, Row
    from longspan.types import Record


@settings
class MultiQuestion(Task):
    """Contexts with questions, scored by the references that an answer contains."""

    version: ClassVar[int] = 1

    path: str | None = None
    """A .jsonl or .json file."""
    prompt: str = "{context}\n\nQuestion: {question}\nAnswer:"
    """`{context}` and, behind it, `{question}` are replaced; the rest is read as it stands."""
    match: Match = "any"
    """any: one of the references suffices; all: the share of them that is found."""
    max_new_tokens: Count = 32
    prompt_style: PromptStyle = "auto"

    @model_validator(mode="after")
    def _prompt_has_places(self) -> Self:
        if not 0 <= self.prompt.find("{context}") < self.prompt.find("{question}"):
            raise ValueError(f"task.prompt={self.prompt!r}: needs {{context}}, then {{question}}")
        return self

    @property
    def label(self) -> str:
        """multi_question[name of the file]."""
        return "multi_question" + (f"[{Path(self.path).stem}]" if self.path else "")

    def examples(
        self, tokenizer: Tokenizer, context_tokens: int | None, count: int | None, seed: int
    ) -> Sequence[Example]:
        """The first `count` questions of the file. ValueError names a row and field that are wrong,
        and a prompt that does not fit.
        """
        examples: list[Example] = []
        for number, (place, row) in enumerate(_contexts(read_rows(self._file()))):
            for example in self._of_row(row, place, number):
                if len(examples) == count:
                    return examples
                self._check_length(example, tokenizer, context_tokens)
                examples.append(example)
        return examples

    def _file(self) -> Path:
        if self.path is None:
            raise ValueError("task.path is not set: a .json or .jsonl with context and questions")
        return Path(self.path).expanduser()

    def _of_row(self, row: Row, where: str, number: int) -> Iterator[Example]:
        document = text_field(row, ["context"], where)
        questions = _objects(row, "questions", where)
        before, rest = self.prompt.split("{context}", 1)
        between, after = rest.split("{question}", 1)
        context, _ = styled(before + document, "", self.prompt_style)
        for turn, item in enumerate(questions):
            here = f"{where}, question {turn}"
            asked = between + text_field(item, ["question"], here) + after
            yield Example(
                id=f"{number}/{turn}",
                context=context,
                question=styled("", asked, self.prompt_style)[1],
                references=_references(item, here),
                max_new_tokens=self.max_new_tokens,
                chat=self.prompt_style == "auto",
                meta={"context_id": text_sha256(context)[:16], "turn": turn},
            )

    def _check_length(self, example: Example, tokenizer: Tokenizer, ctx: int | None) -> None:
        if ctx is None:
            return
        prompt = count_tokens(tokenizer, example.prompt) + overhead_tokens(tokenizer, example.chat)
        needed = prompt + example.max_new_tokens
        if needed > ctx:
            raise ValueError(
                f"ctx={ctx}: question {example.id} of task.path={self.path} needs {needed} tokens "
                f"({example.max_new_tokens} of them for the answer); must be at least that"
            )

    def score(self, example: Example, text: str) -> float:
        """0..100, ignoring case."""
        return substring_score(text, example.references, self.match)

    def aggregate(self, records: Sequence[Record]) -> Mapping[str, float]:
        """The number of contexts, and the mean score by the question's place: later questions show
        what reusing a context costs.
        """
        turns: dict[int, list[float]] = defaultdict(list)
        for record in records:
            turns[record.meta["turn"]].append(record.score)
        metrics = {"contexts": float(len({record.meta["context_id"] for record in records}))}
        for turn, scores in sorted(turns.items()):
            metrics |= with_interval(f"turn/{turn}", [[scores]])
        return metrics

    def identity(self) -> Mapping[str, Any]:
        """The file's hash."""
        return {"data": file_sha256(self._file())}


def _contexts(rows: Sequence[Placed]) -> Iterator[Placed]:
    """The rows, or the paragraphs of SQuAD's articles in the same form."""
    for place, row in rows:
        if not isinstance(row.get("paragraphs"), list):
            yield place, row
            continue
        for paragraph in _objects(row, "paragraphs", place):
            asked = [qa for qa in _objects(paragraph, "qas", place) if not qa.get("is_impossible")]
            if asked:
                yield place, {"context": paragraph.get("context"), "questions": asked}


def _objects(row: Mapping[str, Any], name: str, where: str) -> list[dict[str, Any]]:
    value = field(row, [name], where)
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        raise ValueError(f"{where}: field {name} must be a list of objects")
    return value


def _references(item: Mapping[str, Any], where: str) -> tuple[str, ...]:
    value = field(item, ["outputs", "answer", "answers"], where)
    if isinstance(value, list) and all(isinstance(each, dict) and "text" in each for each in value):
        texts = references([each["text"] for each in value], "answers", where)
        return tuple(dict.fromkeys(texts))  # SQuAD's, each by several people
    return references(value, "outputs", where)
