"""A needle in a haystack over a grid of depths and lengths, for a heat map (after G. Kamradt,
2023).

The words are RULER's, the prose is our own. The same haystack and key serve all depths of one
length, so that cells differ in the place of the needle, and in its number, only.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from longspan.options import Count, Number, settings
from longspan.tasks.base import Task
from longspan.tasks.haystack import HAYSTACK_VERSION, synthetic_words
from longspan.tasks.lengths import count_tokens, style_tokens
from longspan.tasks.matching import substring_score
from longspan.tasks.needle_wording import ruler_wording
from longspan.tasks.prompts import PromptStyle, styled
from longspan.types import Example

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from longspan.tasks.base import Tokenizer
    from longspan.types import Record

_SEAM_TOKENS = 8
"""What joining texts may add to the sum of their tokens."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One point of the grid."""

    length: int
    depth: float
    """Percent of the sentences that stand before the needle."""


@settings
class Needle(Task):
    """One needle a prompt, at every depth of every length."""

    version: ClassVar[int] = 3

    depths: Annotated[tuple[float, ...], Field(strict=False)] = (0.0, 25.0, 50.0, 75.0, 100.0)
    """Percent, 0 the beginning and 100 the end."""
    lengths: Number | Annotated[tuple[int, ...], Field(strict=False)] = 2
    """Token counts, or in how many equal steps up to ctx."""
    max_new_tokens: Count = 32
    prompt_style: PromptStyle = "auto"
    answer_prefix: bool = True

    @property
    def label(self) -> str:
        """needle."""
        return "needle"

    @property
    def default_context_tokens(self) -> int | None:
        """For steps up to a context; a list of lengths needs none."""
        return 4096 if isinstance(self.lengths, int) else None

    def examples(
        self, tokenizer: Tokenizer, context_tokens: int | None, count: int | None, seed: int
    ) -> Sequence[Example]:
        """See `Task.examples`. The grid row by row, and again from its beginning for larger counts;
        None: once.
        """
        cells = self._cells(context_tokens)
        count = len(cells) if count is None else count
        around = style_tokens(tokenizer, self.prompt_style) + self.max_new_tokens
        keys = ruler_wording().keys
        haystacks: dict[tuple[int, int], tuple[str, list[str]]] = {}
        examples = []
        for index in range(count):
            turn, cell = index // len(cells), cells[index % len(cells)]
            if (cell.length, turn) not in haystacks:
                words = synthetic_words(seed + turn, cell.length)
                key = Random(f"{seed}:{turn}:{cell.length}").choice(keys)
                room = cell.length - around - _frame_tokens(tokenizer, key)
                if not (sentences := _fitting(tokenizer, words, room)):
                    raise ValueError(
                        f"ctx or task.lengths = {cell.length}: the needle and its question leave "
                        f"{max(room, 0)} tokens for the haystack, too few for a sentence"
                    )
                haystacks = {(cell.length, turn): (key, sentences)}
            rng = Random(f"{seed}:{turn}:{cell.length}:{cell.depth}")
            examples.append(self._example(index, cell, *haystacks[cell.length, turn], rng))
        return examples

    def score(self, example: Example, text: str) -> float:
        """Whether the code is in the answer."""
        return substring_score(text, example.references, "all")

    def aggregate(self, records: Sequence[Record]) -> Mapping[str, float]:
        """Mean scores by length, by depth and by cell (`length/depth`)."""
        groups: defaultdict[str, list[float]] = defaultdict(list)
        for shape in ("length/{0}", "depth/{1:g}", "{0}/{1:g}"):
            for record in records:
                name = shape.format(record.meta["length"], record.meta["depth"])
                groups[name].append(record.score)
        return {name: sum(scores) / len(scores) for name, scores in groups.items()}

    def identity(self) -> Mapping[str, Any]:
        """Versions of the words and the prose."""
        from longspan.tasks.prepare import versions

        return {**versions(), "haystack": "synthetic", "haystack_version": HAYSTACK_VERSION}

    def _cells(self, context_tokens: int | None) -> list[Cell]:
        lengths = self.lengths
        if isinstance(lengths, int):
            if context_tokens is None:
                raise ValueError(
                    f"ctx=None: task.lengths={lengths} steps up to ctx need one, such as 16k"
                )
            lengths = tuple(context_tokens * step // lengths for step in range(1, lengths + 1))
        if not lengths or not self.depths:
            raise ValueError(f"task.depths={self.depths}, lengths={lengths}: the grid has no cell")
        if context_tokens is not None and max(lengths) > context_tokens:
            raise ValueError(f"task.lengths={lengths}: must not be beyond ctx={context_tokens}")
        if not all(0 <= depth <= 100 for depth in self.depths):
            raise ValueError(f"task.depths={self.depths}: must be percent, from 0 to 100")
        return [Cell(length, depth) for length in lengths for depth in self.depths]

    def _example(
        self, index: int, cell: Cell, key: str, sentences: list[str], rng: Random
    ) -> Example:
        words, code = ruler_wording(), str(rng.randrange(10**6, 10**7))
        place = round(len(sentences) * cell.depth / 100)
        needle = words.needle.format(key=key, value=code)
        told = " ".join([*sentences[:place], needle, *sentences[place:]])
        context, question = styled(
            f"{words.introduction}{told}\n", words.question.format(key=key), self.prompt_style
        )
        return Example(
            id=str(index),
            context=context,
            question=question,
            references=(code,),
            max_new_tokens=self.max_new_tokens,
            prefix=words.prefix.format(key=key) if self.answer_prefix else "",
            chat=self.prompt_style == "auto",
            meta={"length": cell.length, "depth": cell.depth},
        )


def _frame_tokens(tokenizer: Tokenizer, key: str) -> int:
    """What the introduction, a needle, the question and the answer's beginning take at most."""
    words = ruler_wording()
    digits = "1 2 3 4 5 6 7"  # the worst a tokenizer can do to seven digits
    frame = (words.introduction, words.needle, words.question, words.prefix)
    text = " ".join(frame).format(key=key, value=digits)
    return count_tokens(tokenizer, text) + _SEAM_TOKENS


def _fitting(tokenizer: Tokenizer, words: list[str], limit: int) -> list[str]:
    """Whole sentences of `words`, as many as surely fit in `limit` tokens."""
    sentences = [f"{each}." for each in " ".join(words).split(". ")[:-1]]
    fits, beyond, guess = 0, len(sentences) + 1, min(len(sentences), 1 + limit // 16)
    while beyond - fits > 1 + fits // 100:
        tokens = count_tokens(tokenizer, " ".join(sentences[:guess]))
        if tokens <= limit:
            fits = guess
        else:
            beyond = guess
        likely = guess * max(limit - _SEAM_TOKENS, 1) // max(tokens, 1)
        guess = min(max(likely, fits + 1), beyond - 1)
    return sentences[:fits]
