"""Synthetic haystack prose: seeded, unlimited, free of licences and of the network.

RULER hides its needles in essays that may not be redistributed. Where no essay file is given, the
tasks use this prose instead and say so in their name (`haystack=synthetic`); its scores are never
averaged into a RULER number.

Seeds: evaluation uses seeds >= 0, training uses seeds < 0, so no model of ours has seen the prose
it is tested on.
"""

from __future__ import annotations

import hashlib
import random
from functools import cache
from typing import Final

HAYSTACK_VERSION: Final = 1
"""Rises whenever the words for a given seed change; belongs into every cache key and record."""

# N noun, A adjective, V verb in its base form, C count, P place phrase, T time phrase.
_PATTERNS: Final = (
    "The N and the N stood beside a A N",
    "T we found a A N P",
    "Nobody could V the N before the N was A",
    "A A N is worth more than a A N",
    "My neighbour wanted to V every N P",
    "If the N is A you should V it T",
    "They bought C A N boxes and left P",
    "It was A to V without a N",
    "Why would anyone V such a A N",
    "She kept the N P because it looked A",
    "He did not V the N but the N did",
    "T the A N was gone and only the N remained",
    "We learned to V slowly and to V with care",
    "Some people call this N A while others call it A",
    "A letter about the N arrived P",
    "The oldest N in the village is still A",
    "You can V a N or you can V a N",
    "C travellers asked for the N P",
    "What the N needs is a A N and some time",
    "There is no N as A as this one",
    "The teacher told us to V T",
    "Between the N and the N lies a A path",
    "Her brother will V the A N T",
    "Most of the N was A and the rest was A",
    "Every winter the A N comes back P",
    "I would rather V than wait for the N",
    "The story begins with a N and ends with a A N",
    "Without the N we could not V P",
    "Our A plan was to V the N first and the N afterwards",
    "The N had C handles and a A lid",
    "Perhaps the N will V when the N turns A",
    "At the market a A N costs less than a N",
    "The children drew a N, a N and a A N",
    "He spoke of the N as if it were A",
    "Nothing is as A as a N P",
    "It takes C hours to V a A N",
)
_PLACES: Final = (
    "near the river",
    "behind the old mill",
    "in the upper room",
    "on the other side of the street",
    "under a wide bridge",
    "at the edge of town",
    "beside the railway",
    "in the garden",
    "below the stairs",
    "along the coast",
)
_TIMES: Final = (
    "in the morning",
    "last summer",
    "after the rain",
    "before noon",
    "every other week",
    "on the following day",
    "late at night",
    "during the festival",
    "at the end of the year",
    "once in a while",
)
_COUNTS: Final = ("two", "three", "four", "five", "seven", "nine", "twelve", "twenty")


@cache
def _vocabulary() -> dict[str, tuple[str, ...]]:
    """Words for each slot letter; plain lower-case words of 3 to 8 letters, sorted."""
    from wonderwords import RandomWord

    source = RandomWord()

    def words(category: str) -> tuple[str, ...]:
        return tuple(sorted(source.filter(include_categories=[category], regex="[a-z]{3,8}")))

    return {
        "N": words("noun"),
        "A": words("adjective"),
        "V": words("verb"),
        "C": _COUNTS,
        "P": _PLACES,
        "T": _TIMES,
    }


def _sentence(rng: random.Random, vocabulary: dict[str, tuple[str, ...]]) -> list[str]:
    """One sentence as words; the last ends in a full stop."""
    pattern = _PATTERNS[int(rng.random() * len(_PATTERNS))]
    words: list[str] = []
    for slot in pattern.split():
        letter, comma = (slot[:-1], ",") if slot.endswith(",") else (slot, "")
        # "A" opens some patterns as the article: only there it is not a slot.
        choices = vocabulary.get(letter) if words or letter != "A" else None
        text = choices[int(rng.random() * len(choices))] if choices else letter
        words.extend((text + comma).split())
    words[0] = words[0][0].upper() + words[0][1:]
    words[-1] += "."
    return words


def synthetic_words(seed: int, count: int) -> list[str]:
    """Exactly `count` words of prose; a longer call with the same seed starts with the same words.

    Raises ValueError when `count` is negative.
    """
    if count < 0:
        raise ValueError(f"count={count}: must be 0 or more words")
    rng = random.Random(f"longspan-haystack-{HAYSTACK_VERSION}:{seed}")
    vocabulary = _vocabulary()
    words: list[str] = []
    while len(words) < count:
        words.extend(_sentence(rng, vocabulary))
    return words[:count]


def haystack_sha256(words: list[str]) -> str:
    """Digest of the words joined by single blanks, for cache keys and result labels."""
    return hashlib.sha256(" ".join(words).encode()).hexdigest()
