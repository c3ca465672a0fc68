"""GPQA: graduate questions with four choices (Rein et al. 2023, arXiv 2311.12022).

Its authors ask that no question be shown in plain text, so the task is private: records keep ids,
hashes, the order of the choices and the letter chosen, never a word of a question or of an answer.
"""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import model_validator

from longspan.options import settings
from longspan.tasks.answers import letter
from longspan.tasks.reasoning import Reasoning
from longspan.tasks.references import references
from longspan.tasks.rows import field, text_field, text_sha256
from longspan.types import Example

if TYPE_CHECKING:
    from longspan.tasks.rows import Row
    from longspan.types import Record

_LETTERS = "ABCD"
_PLACES = ("{question}", "{choices}")


@settings
class Gpqa(Reasoning):
    """GPQA main or diamond, from the authors' CSV or rows of {question, choices, answer}."""

    version: ClassVar[int] = 2
    private: ClassVar[bool] = True

    subset: Literal["main", "diamond"] = "main"
    prompt: str = (
        "{question}\n\n{choices}\n\nThink it through, then give the letter of the one right choice "
        "as \\boxed{letter}."
    )
    """`{question}` and, behind it, `{choices}` are replaced; the rest is read as it stands."""

    @model_validator(mode="after")
    def _prompt_has_places(self) -> Self:
        places = [self.prompt.find(place) for place in _PLACES]
        if -1 in places or places != sorted(places):
            raise ValueError(f"task.prompt={self.prompt!r}: must have {' and then '.join(_PLACES)}")
        return self

    @property
    def label(self) -> str:
        """gpqa_main, gpqa_diamond."""
        return f"gpqa_{self.subset}"

    @property
    def how_to_get(self) -> str:
        """What to do without the hub."""
        return (
            "GPQA is gated: accept its terms at huggingface.co/datasets/Idavidrein/gpqa, log in "
            "with `hf auth login`, or set task.path= to its CSV (scripts/get_data.py gpqa says how)"
        )

    def problem(self, row: Row, where: str, index: int, seed: int) -> Example:
        """One question, its choices in an order that depends on the seed and the record only."""
        question = text_field(row, ["Question", "question"], where).strip()
        choices, right = _choices(row, where)
        digest = text_sha256(question)
        identifier = str(row.get("Record ID") or row.get("id") or digest[:16])
        order = list(range(len(choices)))
        random.Random(f"{seed}:{identifier}").shuffle(order)
        lines = [
            f"({letter}) {choices[i].strip()}" for letter, i in zip(_LETTERS, order, strict=True)
        ]
        before, rest = self.prompt.split("{question}", 1)
        between, after = rest.split("{choices}", 1)
        return Example(
            id=identifier,
            context=before + question,
            question=between + "\n".join(lines) + after,
            references=(_LETTERS[order.index(right)],),
            max_new_tokens=self.max_new_tokens,
            meta={"row": index, "order": order, "question_sha256": digest},
        )

    def score(self, example: Example, text: str) -> float:
        """100 for the right letter; an answer without a letter is wrong."""
        chosen = None if self.thought_open(text, example.meta) else letter(text)
        return 100.0 * (chosen == example.references[0])

    def stored(self, example: Example, text: str) -> str:
        """The letter, whether the thoughts ended, and a hash: never the text."""
        inside = self.thought_open(text, example.meta)
        answer = None if inside else letter(text)
        kept = {"answer": answer, "inside_thought": inside, "sha256": text_sha256(text)}
        return json.dumps(kept)

    def outcome(self, record: Record) -> tuple[str | None, bool]:
        """What `stored` kept."""
        kept = json.loads(record.prediction)
        return kept["answer"], kept["inside_thought"]

    def same(self, answer: str, other: str) -> bool:
        """The same letter."""
        return answer == other


def _choices(row: Row, where: str) -> tuple[list[str], int]:
    """(four choices, the index of the right one)."""
    if "choices" not in row:
        wrong = [text_field(row, [f"Incorrect Answer {i}"], where) for i in (1, 2, 3)]
        return [text_field(row, ["Correct Answer"], where), *wrong], 0
    choices, answer = row["choices"], field(row, ["answer"], where)
    if not isinstance(choices, list) or len(choices) != 4:
        raise ValueError(f"{where}: field choices must be a list of four texts")
    if answer in list(_LETTERS):
        answer = _LETTERS.index(answer)
    if not isinstance(answer, int) or isinstance(answer, bool) or not 0 <= answer < 4:
        raise ValueError(f"{where}: field answer must be 0 to 3, or A to D")
    return list(references(choices, "choices", where)), answer
