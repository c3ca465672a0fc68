"""Counting sequences: lists in which some words stand more often than others, asked for.

Common words are numbered, frequent words are coded. `exact` is the form of the evaluation at that
length, its room for the answer included; else many short lists of few words, easier to tell apart.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from nano_lists import COMMON, Words, common_list, easy_list, frequent_list
from nano_sequence import END, LEAD, PARTS, Sequence

if TYPE_CHECKING:
    from nano_sequence import Material

CWE_EXACT: Final = 800
"""Tokens that hold the example and a list of the ten common words, room for the answer included."""
FWE_EXACT: Final = 320
"""Tokens from which on the first four coded words differ in frequency."""
CWE_ROOM, FWE_ROOM = 120, 50
"""Tokens of the length that the evaluation keeps for the answer."""
EASY: Final = 120
"""Tokens of the smallest easy list with its question."""
LONG: Final = 4096
"""From here on the evaluation repeats words more often, in its example as well."""
NUMBERS: Final = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def cwe_sequence(material: Material, length: int, exact: bool) -> Sequence:
    """A sequence of about `length` tokens; exact: of CWE_EXACT or more, behind a solved example.

    The answer is in order of first appearance.
    """
    sequence = Sequence()
    if not exact:
        return _easy(material, length, coded=False)
    size, high, low = (20, 3, 1) if length < LONG else (40, 10, 3)
    words = material.rng.sample(material.templates.cwe_words, size)
    example = Words(words, [high] * COMMON + [low] * (size - COMMON), COMMON)
    _append_cwe(material, sequence, example, None, brief=False)
    sequence.add(material.fixed("\n"))
    room = length - CWE_ROOM - len(sequence.ids)
    repeats = (6, 1) if length < LONG else (30, 3)
    _append_cwe(material, sequence, common_list(material, room, *repeats), 0, brief=False)
    return sequence


def fwe_sequence(material: Material, length: int, exact: bool) -> Sequence:
    """A sequence of about `length` tokens; exact: of FWE_EXACT or more.

    The answer is in order of frequency.
    """
    if not exact:
        return _easy(material, length, coded=True)
    sequence = Sequence()
    _append_fwe(material, sequence, frequent_list(material, length - FWE_ROOM), 0, brief=False)
    return sequence


def _easy(material: Material, length: int, coded: bool) -> Sequence:
    """Lists with a question each until `length` is used up."""
    rng = material.rng
    sequence, number, left = Sequence(), 0, max(EASY, length)
    append = _append_fwe if coded else _append_cwe
    while left >= EASY:
        brief = number > 0 and rng.random() < 0.7
        space = int(EASY * (left / EASY) ** rng.random())
        words = easy_list(material, space - (30 if brief else 80), coded)
        append(material, sequence, words, number, brief)
        number, left = number + 1, length - len(sequence.ids)
    return sequence


def _append_cwe(
    material: Material, out: Sequence, words: Words, number: int | None, brief: bool
) -> None:
    """Header, numbered list, question and answer; number None: a solved example, whose answer has
    no order and is nothing to learn.
    """
    templates = material.templates
    listed = words.shuffled(material)
    ids = [*material.fixed("\n" if brief else templates.cwe_header), *material.fixed("1.")]
    for place, word in enumerate(listed, 1):
        ids += material.fixed(f" {place}.") if place > 1 else []
        ids += material.fixed(f" {word}")
    out.add(ids)
    out.add(_question(material, templates.cwe_question, str(COMMON), str(words.asked), brief))
    answer = words.words[: words.asked]
    if number is not None:
        common = set(answer)
        answer = [word for word in dict.fromkeys(listed) if word in common]
    for place, word in enumerate(answer):
        lead = material.fixed(f" {place + 1}." if place else "1.")
        if number is None:
            out.add([*lead, *material.fixed(f" {word}")])
        else:
            out.add(lead, answer=number * PARTS + LEAD)
            out.add(material.fixed(f" {word}"), answer=number * PARTS + place)
    if number is not None:
        out.add([material.eos], answer=number * PARTS + END)


def _append_fwe(material: Material, out: Sequence, words: Words, number: int, brief: bool) -> None:
    """Header, coded text, question and answer."""
    templates = material.templates
    codes = {word: material.encode(f" {word}") for word in words.words}
    ids = [*material.fixed("\n" if brief else templates.fwe_header.rstrip())]
    for word in words.shuffled(material):
        ids += codes[word]
    out.add(ids)
    asked = NUMBERS[words.asked - 1]
    out.add(_question(material, templates.fwe_question, NUMBERS[2], asked, brief))
    for place, word in enumerate(words.words[: words.asked]):
        out.add(codes[word], answer=number * PARTS + place)
    out.add([material.eos], answer=number * PARTS + END)


def _question(
    material: Material, question: str, written: str, asked: str, brief: bool
) -> list[int]:
    """The question for another number of words; `brief`: its answer prefix alone."""
    if brief:
        question = "\n" + question[question.index(" Answer:") + 1 :]
    return material.fixed(question.replace(written, asked))
