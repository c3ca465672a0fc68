"""What training sequences are made of: tokens with their purpose, and the material to write them.

Seeds are negative throughout: evaluation uses seeds >= 0, and so does its prose.
"""

from __future__ import annotations

import random
import string
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from nano_templates import Templates
    from numpy.typing import NDArray

NO_ANSWER: Final = -1
PARTS: Final = 32
"""Answer numbers are question * PARTS + part; the last two parts are not counted as answers."""
END: Final = PARTS - 2
LEAD: Final = PARTS - 1


@dataclass(frozen=True)
class Series:
    """Tokens of what an answer gives one after the other, in order of the text."""

    parts: list[list[int]]
    chained: bool
    """A value and the variables of its chain; else the values of one key."""


@dataclass
class Sequence:
    """Token ids under construction, with what each token is for."""

    ids: list[int] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)
    """Number of the answer a token belongs to, NO_ANSWER elsewhere."""
    haystack: list[int] = field(default_factory=list)
    """Number of the haystack run a token belongs to, 0 elsewhere."""
    series: list[Series] = field(default_factory=list)

    def add(self, ids: list[int], answer: int = NO_ANSWER, run: int = 0) -> None:
        """Append tokens that share one purpose."""
        self.ids += ids
        self.answers += [answer] * len(ids)
        self.haystack += [run] * len(ids)

    def extend(self, other: Sequence) -> None:
        """Append another sequence as it is."""
        self.series += other.series
        self.ids += other.ids
        self.answers += other.answers
        self.haystack += other.haystack


class Material:
    """Random strings, prose and wording in tokens; `encode` is the tokenizer without specials."""

    def __init__(
        self,
        encode: Callable[[str], list[int]],
        templates: Templates,
        prose: list[str],
        words: tuple[list[str], list[str]],
        eos: int,
        seed: int,
    ) -> None:
        if seed >= 0:
            raise ValueError(f"seed={seed}: training seeds are negative")
        self.rng = random.Random(seed)
        self.templates = templates
        self.adjectives, self.nouns = words
        self.eos = eos
        self.encode = encode
        self._memo: dict[str, list[int]] = {}
        sentences = " ".join(prose).split(". ")[:-1]
        self.prose = [encode(f" {sentence}.") for sentence in sentences]

    def fixed(self, text: str) -> list[int]:
        """Encode and remember; for texts that come back."""
        if text not in self._memo:
            self._memo[text] = self.encode(text)
        return self._memo[text]

    def word(self) -> str:
        """Adjective and noun with a hyphen, as the benchmark's keys."""
        return f"{self.rng.choice(self.adjectives)}-{self.rng.choice(self.nouns)}"

    def unique_id(self) -> str:
        """A random UUID."""
        return str(uuid.UUID(int=self.rng.getrandbits(128), version=4))

    def value(self, kind: str) -> str:
        """Seven digits or a UUID."""
        if kind == "numbers":
            return str(self.rng.randint(1_000_000, 9_999_999))
        return self.unique_id()

    def variable(self, letters: int) -> str:
        """Random capitals."""
        return "".join(self.rng.choices(string.ascii_uppercase, k=letters))


def copy_sequence(material: Material, length: int, vocabulary: int) -> Sequence:
    """Random tokens, then the same again and again: what induction heads form on."""
    rng = material.rng
    period = rng.randint(max(4, length // 4), max(4, length // 2))
    part = [rng.randrange(2, vocabulary) for _ in range(period)]
    sequence = Sequence()
    sequence.add(part + part[:1])
    for token in (part[1:] + part * 4)[: length - period - 1]:
        sequence.add([token], answer=PARTS * len(sequence.ids))
    return sequence


def pack(
    sequences: list[Sequence], pad: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Rows padded on the right to the longest: ids_BT, answers_BT, haystack_BT."""
    shape = (len(sequences), max(len(sequence.ids) for sequence in sequences))
    ids_BT = np.full(shape, pad, np.int64)
    answers_BT = np.full(shape, NO_ANSWER, np.int64)
    haystack_BT = np.zeros(shape, np.int64)
    for row, sequence in enumerate(sequences):
        end = len(sequence.ids)
        ids_BT[row, :end] = sequence.ids
        answers_BT[row, :end] = sequence.answers
        haystack_BT[row, :end] = sequence.haystack
    return ids_BT, answers_BT, haystack_BT
