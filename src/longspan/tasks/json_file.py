"""Any file of {input, outputs}: .json with a list or one object, .jsonl, .csv or .parquet."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from longspan.options import Count, settings
from longspan.tasks.base import Task
from longspan.tasks.files import file_sha256
from longspan.tasks.json_rows import FileRow, parse_row
from longspan.tasks.lengths import count_tokens, style_tokens, without_middle
from longspan.tasks.matching import Metric, answer_score
from longspan.tasks.prompts import PromptStyle, styled
from longspan.tasks.rows import read_rows
from longspan.types import Example

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from longspan.tasks.base import Tokenizer


@settings
class JsonFile(Task):
    """Rows with a prompt (`input`, or `context` and `question`; either may be called `input` beside
    the other) and its answers (`outputs`).

    A row may bring its own `metric`, `max_new_tokens`, `prefix` and `chat`. Texts are left as they
    are, marks such as <|begin_of_text|> included.
    """

    version: ClassVar[int] = 2

    path: str | None = None
    metric: Metric = "all"
    """all: share of the outputs contained; any: one suffices; exact; prefix: begins with one."""
    max_new_tokens: Count = 128
    prefix: str = ""
    """Begins the answer for the model."""
    prompt_style: PromptStyle = "auto"
    """raw for prompts that hold their chat template or the answer's beginning already."""
    truncate: Literal["error", "middle"] = "error"
    """What to do with a prompt longer than ctx: stop, or cut out its middle."""

    @property
    def label(self) -> str:
        """json_file[name of the file]."""
        return f"json_file[{Path(self.path).stem}]" if self.path else "json_file"

    def examples(
        self, tokenizer: Tokenizer, context_tokens: int | None, count: int | None, seed: int
    ) -> Sequence[Example]:
        """See `Task.examples`: the first `count` rows, fewer where the file has fewer."""
        pairs = read_rows(self._path)[:count]
        return [
            self._example(index, place, parse_row(row, place), tokenizer, context_tokens)
            for index, (place, row) in enumerate(pairs)
        ]

    def score(self, example: Example, text: str) -> float:
        """By the row's metric, or else the task's."""
        return answer_score(text, example.references, example.meta["metric"])

    def identity(self) -> Mapping[str, Any]:
        """Digest of the file."""
        return {"sha256": file_sha256(self._path)}

    @property
    def _path(self) -> str:
        if self.path is None:
            raise ValueError(
                "task.path=None: json_file needs a .json, .jsonl, .csv or .parquet file of {input, "
                "outputs}"
            )
        return self.path

    def _example(
        self, index: int, place: str, row: FileRow, tokenizer: Tokenizer, limit: int | None
    ) -> Example:
        style: PromptStyle = "raw" if row.chat is False else self.prompt_style
        new_tokens = row.max_new_tokens or self.max_new_tokens
        prefix = self.prefix if row.prefix is None else row.prefix
        context, question = row.context, row.question
        around = style_tokens(tokenizer, style) + count_tokens(tokenizer, prefix) + new_tokens
        tokens = count_tokens(tokenizer, context + question) + around
        cut = limit is not None and tokens > limit
        if limit is not None and cut:
            if self.truncate == "error":
                raise ValueError(
                    f"{place}: {tokens} tokens ({new_tokens} of them new) are more than "
                    f"ctx={limit}; use a larger ctx, or truncate=middle"
                )
            room = limit - around - count_tokens(tokenizer, question)
            context = without_middle(tokenizer, context, room, place)
        context, question = styled(context, question, style)
        return Example(
            id=str(index),
            context=context,
            question=question,
            references=row.outputs,
            max_new_tokens=new_tokens,
            prefix=prefix,
            chat=style == "auto",
            meta={"metric": row.metric or self.metric, "truncated": cut, "source_id": row.id},
        )
