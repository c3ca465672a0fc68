"""RULER (arXiv 2404.06654): 13 synthetic long-context tasks, with the texts and answers of NVIDIA's
own.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import model_validator

from longspan.options import Count, Folder, settings
from longspan.tasks.base import Task
from longspan.tasks.files import file_sha256
from longspan.tasks.haystack import HAYSTACK_VERSION
from longspan.tasks.lengths import seam_tokens, style_tokens
from longspan.tasks.matching import substring_score
from longspan.tasks.prompts import PromptStyle, split_question, styled
from longspan.tasks.ruler_job import GENERATOR_VERSION, Haystack, Job, Row, Splitter
from longspan.tasks.ruler_specs import SPECS, RulerName, Spec
from longspan.types import Example

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from longspan.tasks.base import Tokenizer

RULER_SAMPLES = 500
"""RULER's own number of samples a task, where none is asked for."""
QUESTION_FILES = ("dev-v2.0.json", "hotpot_dev_distractor_v1.json")


@settings
class Ruler(Task):
    """One task of RULER at any context length, generated for the model's tokenizer and cached under
    `data_dir`.
    """

    version: ClassVar[int] = 2

    name: RulerName
    haystack: Haystack = "synthetic"
    """The prose of the essay tasks: our own; `haystack_path`; or the hub's essays (the only one
    that needs a network).
    """
    haystack_path: str | None = None
    """A .txt file or RULER's PaulGrahamEssays.json."""
    splitter: Splitter = "untrained"
    """Punkt without training data, or nltk's punkt_tab: RULER's own, where it is installed."""
    data: str | None = None
    """qa_1, qa_2: the SQuAD v2 or HotpotQA file (.json). Any task: rows in NVIDIA's format or with
    kvpress' columns (.jsonl, .parquet), used as they are.
    """
    prompt_style: PromptStyle = "auto"
    answer_prefix: bool = True
    """Whether the answer is begun for the model; False for models that think first."""
    max_new_tokens: Count | None = None
    """None: RULER's own allowance, 30 to 128."""
    data_dir: Folder = "results/.data"

    @model_validator(mode="after")
    def _a_haystack_that_is_named_is_read(self) -> Self:
        if self.haystack_path is not None and self.haystack != "path":
            raise ValueError(
                f"task.haystack_path = {self.haystack_path!r}: not read with task.haystack = "
                f"{self.haystack!r}; right would be task.haystack=path beside it"
            )
        return self

    @property
    def spec(self) -> Spec:
        """The parameters of the task."""
        return SPECS[self.name]

    @property
    def label(self) -> str:
        """The task's name; in brackets what is not the benchmark's own."""
        name = f"ruler_{self.name}"
        if self.data is not None:
            known = self.spec.needs_questions and Path(self.data).name in QUESTION_FILES
            return name if known else f"{name}[data-{file_sha256(self.data, 'task.data')[:8]}]"
        if not self.spec.needs_essay or self.haystack == "hub":
            return name
        if self.haystack == "synthetic":
            return f"{name}[synthetic]"
        return f"{name}[essay-{self._haystack_sha256()[:8]}]"

    @property
    def default_context_tokens(self) -> int | None:
        """RULER's shortest; finished rows have their own lengths."""
        return None if self._has_rows() else 4096

    def examples(
        self, tokenizer: Tokenizer, context_tokens: int | None, count: int | None, seed: int
    ) -> Sequence[Example]:
        """See `Task.examples`; the first examples are the same for any `count`."""
        if self._has_rows():
            from longspan.tasks.ruler_rows import examples_from_rows

            return examples_from_rows(self, tokenizer, context_tokens, count)
        if context_tokens is None:
            raise ValueError(f"ctx=None: {self.label} is generated for a length, such as 16k")
        if self.spec.needs_questions and self.data is None:
            from longspan.tasks.ruler_questions import HOW_TO_GET

            raise ValueError(f"task.data=None: {self.label} needs {HOW_TO_GET[self.spec.kind]}")
        count = RULER_SAMPLES if count is None else count
        from longspan.tasks.prepare import announcer, prepared_rows

        seams = seam_tokens(tokenizer, self.prompt_style)
        overhead = style_tokens(tokenizer, self.prompt_style) + seams
        job = self._job(context_tokens, count, seed, overhead)
        rows = prepared_rows(job, tokenizer, self.data_dir, self._facts(), announcer(self.label))
        return [self.example(row, row["tokens"] - seams, context_tokens) for row in rows]

    def example(self, row: Row, tokens: int, context_tokens: int | None) -> Example:
        """One row as an example; `tokens` is its prompt's length, template included."""
        parts: tuple[str, str] = row.get("parts") or split_question(row["input"])
        context, question = styled(*parts, self.prompt_style)
        outputs = tuple(row["outputs"])
        facts: dict[str, Any] = {
            name: row[name] for name in ("stream", "haystack_sha256") if name in row
        }
        if context_tokens is not None:
            facts["fill"] = round((tokens + self._new_tokens) / context_tokens, 4)
        at = row["input"].find(outputs[0])  # rows from elsewhere may spell it otherwise
        if len(outputs) == 1 and self.spec.kind == "niah" and at >= 0:
            facts["depth"] = round(at / len(row["input"]), 4)
        return Example(
            id=f"{self.name}-{row['index']}",
            context=context,
            question=question,
            references=outputs,
            max_new_tokens=self._new_tokens,
            prefix=row["prefix"] if self.answer_prefix else "",
            chat=self.prompt_style == "auto",
            meta={"index": row["index"], "tokens": tokens, **facts},
        )

    def score(self, example: Example, text: str) -> float:
        """The share of the references that `text` contains; for questions, whether it contains
        any.
        """
        return substring_score(text, example.references, self.spec.match)

    def identity(self) -> Mapping[str, Any]:
        """Versions and digests of everything the data come from."""
        from longspan.tasks.prepare import versions

        if self._has_rows():
            return self._facts()
        made = {"ruler_text": "2025-01", "generator": GENERATOR_VERSION}
        return made | versions() | self._facts()

    @property
    def _new_tokens(self) -> int:
        return self.max_new_tokens or self.spec.max_new_tokens

    def _has_rows(self) -> bool:
        """Whether `data` holds finished rows rather than the questions to make them from."""
        if self.data is None:
            return False
        return not self.spec.needs_questions or self.data.endswith((".jsonl", ".parquet"))

    def _haystack_sha256(self) -> str:
        if self.haystack_path is None:
            raise ValueError("task.haystack_path=None: haystack=path needs a .txt or .json file")
        return file_sha256(self.haystack_path, "task.haystack_path")

    def _facts(self) -> dict[str, Any]:
        """What identifies the files and the prose."""
        if self.data is not None:
            return {"data_sha256": file_sha256(self.data, "task.data")}
        if not self.spec.needs_essay:
            return {}
        facts: dict[str, Any] = {"haystack": self.haystack, "splitter": self.splitter}
        if self.haystack == "synthetic":
            facts["haystack_version"] = HAYSTACK_VERSION
        if self.haystack == "path":
            facts["haystack_sha256"] = self._haystack_sha256()
        return facts

    def _job(self, context_tokens: int, count: int, seed: int, overhead: int) -> Job:
        essay = self.spec.needs_essay
        return Job(
            task=self.name,
            context_tokens=context_tokens,
            overhead_tokens=overhead,
            max_new_tokens=self._new_tokens,
            count=count,
            seed=seed,
            haystack=self.haystack if essay else None,
            splitter=self.splitter if essay else "untrained",
            path=self.haystack_path if essay else self.data,
        )
