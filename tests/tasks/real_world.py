"""What the tests of LongBench, AIME, GPQA and their like share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from longspan.types import Record

if TYPE_CHECKING:
    from collections.abc import Sequence

    from longspan.tasks.base import Task
    from longspan.types import Example

DATA = Path(__file__).parent / "data"


@dataclass(frozen=True)
class CharTokenizer:
    """A token a character, and a BOS where `bos` is set; a template of 8 and `opening` where
    `template` is.
    """

    bos: bool = True
    template: bool = False
    opening: str = ""

    @property
    def chat_template(self) -> str | None:
        return "template" if self.template else None

    def apply_chat_template(self, turns: list[dict[str, str]], **_: Any) -> str:
        return f"<us>{turns[0]['content']}<as>{self.opening}"

    def __call__(self, text: str, *, add_special_tokens: bool = True) -> Any:
        ids = [ord(letter) for letter in text]
        return SimpleNamespace(input_ids=[1, *ids] if self.bos and add_special_tokens else ids)

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = False) -> str:
        return "".join(chr(i) for i in token_ids if i != 1)


def record(task: Task, example: Example, text: str, sample: int = 0, finish: str = "eos") -> Record:
    """The record that a run keeps of an answer."""
    return Record(
        id=example.id,
        sample=sample,
        prediction=task.stored(example, text),
        references=example.references,
        score=task.score(example, text),
        prompt_tokens=len(example.prompt),
        new_tokens=len(text),
        finish=finish,
        seed=0,
        work={},
        meta=example.meta,
    )
