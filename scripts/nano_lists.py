"""Words and their counts for counting sequences, sized to a number of tokens."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from nano_sequence import Material

COMMON: Final = 10
STEP: Final = 10
ZETA_2: Final = 1.6449340668482264
DOTS: Final = "..."


@dataclass(frozen=True)
class Words:
    """Words of a list with their counts; the first `asked` are the answer."""

    words: list[str]
    counts: list[int]
    asked: int

    def shuffled(self, material: Material) -> list[str]:
        """The list in random order."""
        pairs = zip(self.words, self.counts, strict=True)
        listed = [word for word, count in pairs for _ in range(count)]
        material.rng.shuffle(listed)
        return listed


def common_list(material: Material, room: int, high: int, low: int) -> Words:
    """Ten common words among as many tens of others as fit `room` tokens with question and
    answer, as the evaluation counts them.
    """
    templates = material.templates
    frame = len(material.fixed(templates.cwe_header)) + len(material.fixed(templates.cwe_question))
    pool = templates.cwe_words
    words = material.rng.sample(pool, min(len(pool), COMMON + max(0, room) // (4 * low)))
    costs = [len(material.fixed(f" {word}")) for word in words]
    sums = [0, *accumulate(costs)]
    answer = sums[COMMON] + 2 * COMMON
    items = COMMON * high + (len(words) - COMMON) * low
    numbers = [0, *accumulate(len(material.fixed(f" {n}.")) for n in range(1, items + 1))]

    def tokens(size: int) -> int:
        listed = high * sums[COMMON] + low * (sums[size] - sums[COMMON])
        return frame + answer + listed + numbers[COMMON * high + (size - COMMON) * low]

    size = COMMON
    while size + STEP <= len(words) and tokens(size + STEP) <= room:
        size += STEP
    return Words(words[:size], [high] * COMMON + [low] * (size - COMMON), COMMON)


def frequent_list(material: Material, room: int) -> Words:
    """Coded words and dots, counts falling with the square of the rank, that fit `room` tokens
    with the question; sized in the evaluation's steps.
    """
    templates = material.templates
    room_for_list = room - len(material.fixed(templates.fwe_header.rstrip()))
    room_for_list -= len(material.fixed(templates.fwe_question))
    vocabulary = [DOTS, *_coded(material, room // 50 - 1)]
    costs = [len(material.encode(f" {word}")) for word in vocabulary]

    def counts(total: int) -> list[int]:
        return [int(total * rank**-2 / ZETA_2) for rank in range(1, len(vocabulary) + 1)]

    def fits(total: int) -> bool:
        return sum(n * c for n, c in zip(counts(total), costs, strict=True)) <= room_for_list

    total, step = room // 6, room // 32
    while fits(total + step):
        total += step
    while not fits(total) and total > step:
        total -= step
    # The dots come first in frequency and are no answer: last here.
    found = counts(total)
    return Words([*vocabulary[1:], DOTS], [*found[1:], found[0]], 3)


def _coded(material: Material, count: int) -> list[str]:
    words: dict[str, None] = {}
    while len(words) < count:
        words[material.variable(6).lower()] = None
    return list(words)


def easy_list(material: Material, room: int, coded: bool) -> Words:
    """One to ten words to name (coded: to five) and at least two others, about `room` tokens.

    Counts are those of the rarest words times a ratio of two or more; coded words have a ratio to
    one another too, as the order is asked for.
    """
    rng = material.rng
    asked = rng.randint(1, 5 if coded else COMMON)
    others = rng.randint(2, 30)
    ratio = rng.uniform(1.5, 2.5) if coded else rng.uniform(2, 6)
    item = 5 if coded else 4
    while True:
        weights = [2 * ratio ** (asked - 1 - n) if coded else ratio for n in range(asked)]
        low = room / item / (sum(weights) + others)
        if low >= 1 or (asked, others) == (1, 2):
            break
        asked, others = max(1, asked - (others < 2 * asked)), max(2, others * 3 // 4)
    low = max(1.0, low)
    counts = [int(low * weight) for weight in weights]
    counts += [rng.randint(max(1, int(low / 2)), int(low)) for _ in range(others)]
    pool = material.templates.cwe_words
    size = asked + others
    words = _coded(material, size) if coded else rng.sample(pool, size)
    if coded and rng.random() < 0.5:
        words, counts = [*words, DOTS], [*counts, rng.randint(1, 2 * counts[0])]
    return Words(words, counts, asked)
