"""AIME 2024, AIME 2025 and MATH-500: a number or an expression, judged by math-verify.

Rows are accepted as the data sets on the hub have them: {id, problem|question, answer}, in any
capitals.
"""

from __future__ import annotations

from collections import defaultdict
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import model_validator

from longspan.options import settings
from longspan.tasks.answers import number, same_number
from longspan.tasks.averages import macro_average
from longspan.tasks.reasoning import Reasoning
from longspan.tasks.rows import text_field
from longspan.types import Example

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from longspan.tasks.rows import Row
    from longspan.types import Record


@settings
class MathProblems(Reasoning):
    """Problems with one right expression each."""

    version: ClassVar[int] = 2

    name: str
    prompt: str = (
        "{problem}\n\nSolve this step by step, and write the final answer as \\boxed{answer}."
    )
    """`{problem}` is replaced; the rest is read as it stands."""
    require_box: bool = False
    """Whether an answer outside \\boxed{} counts as none."""

    @model_validator(mode="after")
    def _prompt_has_a_place(self) -> Self:
        if self.prompt.count("{problem}") != 1:
            raise ValueError(f"task.prompt={self.prompt!r}: must have {{problem}} in it, once")
        return self

    @property
    def label(self) -> str:
        """aime24, aime25, math500."""
        return self.name

    @property
    def how_to_get(self) -> str:
        """What to do without the hub."""
        return (
            f"Get it with `python scripts/get_data.py {self.name} --to DIR` where there is a "
            f"network, or write a .jsonl with id, problem and answer, and set task.path="
        )

    def problem(self, row: Row, where: str, index: int, seed: int) -> Example:
        """One problem; the seed has no say."""
        lower = {str(key).lower(): value for key, value in row.items()}
        text = text_field(lower, ["problem", "question"], where)
        identifier = lower.get("id", lower.get("unique_id"))
        before, after = self.prompt.split("{problem}")
        about = {key: lower[key] for key in ("level", "subject") if lower.get(key) is not None}
        return Example(
            id=f"row-{index}" if identifier in (None, "") else str(identifier),
            context=before + text,
            question=after,
            references=(text_field(lower, ["answer"], where),),
            max_new_tokens=self.max_new_tokens,
            meta={"row": index, **about},
        )

    def score(self, example: Example, text: str) -> float:
        """100 where math-verify holds the final expression for equal to the answer, else 0."""
        answer = self._answer(text, example.meta)
        return 100.0 * (answer is not None and same_number(answer, example.references[0]))

    def _answer(self, text: str, meta: Mapping[str, Any]) -> str | None:
        return None if self.thought_open(text, meta) else number(text, self.require_box)

    def outcome(self, record: Record) -> tuple[str | None, bool]:
        """(the final expression, whether it ended inside a thought)."""
        text, meta = record.prediction, record.meta
        return self._answer(text, meta), self.thought_open(text, meta)

    def same(self, answer: str, other: str) -> bool:
        """Equal by math-verify."""
        return same_number(answer, other)

    def aggregate(self, records: Sequence[Record]) -> Mapping[str, float]:
        """The sampling metrics and, where the rows have levels, the mean score of each."""
        levels: dict[str, list[float]] = defaultdict(list)
        for record in records:
            if "level" in record.meta:
                levels[f"level/{record.meta['level']}"].append(record.score)
        means = {name: macro_average([[scores]])[0] for name, scores in sorted(levels.items())}
        # Zero-argument super() does not survive the dataclass with slots being made anew.
        return {**Reasoning.aggregate(self, records), **means}

    def identity(self) -> Mapping[str, Any]:
        """The data and the judge."""
        try:
            judge = installed("math-verify")
        except PackageNotFoundError:
            judge = "missing"
        return {**Reasoning.identity(self), "math_verify": judge}
