"""Variable-tracking sequences: chains of assignments in noise, each chain asked about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nano_sequence import END, PARTS, Sequence

if TYPE_CHECKING:
    from nano_sequence import Material

EXAMPLE_LETTERS = 3
LETTERS = 5
HOPS = 5


@dataclass(frozen=True)
class Chain:
    """Variables in order of assignment; the first is given the value."""

    names: list[str]
    value: str

    def statements(self) -> list[str]:
        """Assignments as the benchmark spaces them."""
        first = f" VAR {self.names[0]} = {self.value}"
        links = zip(self.names, self.names[1:], strict=False)
        return [first, *(f" VAR {new} = VAR {old} " for old, new in links)]


def vt_sequence(material: Material, length: int, exact: bool) -> Sequence:
    """A sequence of about `length` tokens; `exact` is the form of the evaluation: one chain."""
    rng = material.rng
    header = len(material.fixed(material.templates.vt_header))
    single = header + 80
    sequence = Sequence()
    if exact or (length >= 3 * single + 150 and rng.random() < 0.6):
        example = min(400, max(single + 90, length // 4))
        _append(material, sequence, example, _chains(material, 1, HOPS, EXAMPLE_LETTERS), 0)
        sequence.add(material.fixed("\n\n\n\n"))
    hops = HOPS if exact or length > 300 else rng.randint(3, HOPS)
    room = max(1, (length - len(sequence.ids) - single) // (hops * 14 + 55))
    count = 1 if exact else min(room, rng.choice((1, 2, 2, 3, 4)))
    chains = _chains(material, count, hops, LETTERS)
    _append(material, sequence, length - len(sequence.ids), chains, 1)
    return sequence


def _chains(material: Material, count: int, hops: int, letters: int) -> list[Chain]:
    return [
        Chain(
            [material.variable(letters) for _ in range(hops)],
            str(material.rng.randint(10_000, 99_998)),
        )
        for _ in range(count)
    ]


def _append(
    material: Material, out: Sequence, length: int, chains: list[Chain], number: int
) -> None:
    """Header, noise with the chains inside, and one question a chain in random order."""
    tail = Sequence()
    for index, chain in enumerate(material.rng.sample(chains, len(chains))):
        brief = index > 0 and material.rng.random() < 0.7
        _ask(material, tail, chain, number + index, brief)
    header = material.fixed(material.templates.vt_header)
    out.add(header)
    placed: list[tuple[float, list[int]]] = []
    for chain in chains:
        texts = chain.statements()
        depths = sorted(material.rng.random() for _ in texts)
        placed += [(d, material.encode(t)) for d, t in zip(depths, texts, strict=True)]
    placed.sort()
    space = length - len(header) - len(tail.ids) - sum(len(ids) for _, ids in placed)
    noise = material.templates.noise + "\n"
    units = max(1, space // len(material.fixed(noise)))
    cursor, run = 0, max(out.haystack, default=0) + 1
    for index in range(units + 1):
        while cursor < len(placed) and int(placed[cursor][0] * (units + 1)) <= index:
            out.add(placed[cursor][1])
            cursor, run = cursor + 1, run + 1
        if index < units:
            out.add(material.fixed(noise if index + cursor == 0 else f" {noise}"), run=run)
    out.extend(tail)


def _ask(material: Material, out: Sequence, chain: Chain, number: int, brief: bool) -> None:
    """The question and the variables; `brief` keeps the answer prefix alone."""
    example = len(chain.names[0]) == EXAMPLE_LETTERS
    question = material.templates.vt_question.format(query=chain.value, num_v=len(chain.names))
    if brief:
        question = question[question.index(" Answer:") + 1 :]
    # The example of the benchmark has one blank more and is followed by the real question.
    out.add(material.encode(("\n" if brief else "") + question + (" " if example else "")))
    for place, name in enumerate(chain.names):
        out.add(material.encode(f" {name}"), answer=number * PARTS + place)
    if not example:
        out.add([material.eos], answer=number * PARTS + END)
