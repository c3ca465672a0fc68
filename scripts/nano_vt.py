"""Variable-tracking sequences: chains of assignments in noise, asked about.

The evaluation has one chain; several make sure that it is followed and not all variables listed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nano_sequence import END, PARTS, Sequence, Series

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
    """A sequence of about `length` tokens; `exact` is the form of the evaluation, with its example
    in front.
    """
    rng = material.rng
    header = len(material.fixed(material.templates.vt_header))
    single = header + 80
    sequence = Sequence()
    if exact or (length >= 3 * single + 150 and rng.random() < 0.5):
        example = min(400, max(single + 90, length // 4))
        _append(material, sequence, example, [_chain(material, HOPS, EXAMPLE_LETTERS)], 0)
        sequence.add(material.fixed("\n\n\n\n"))
    hops = HOPS if exact else rng.randint(2, 8 if length > 250 else HOPS)
    room = max(1, (length - len(sequence.ids) - single) // (hops * 18 + 50))
    count = 1 if exact else min(room, rng.choice((1, 1, 2, 3, 4)))
    chains = [_chain(material, hops, LETTERS) for _ in range(count)]
    _append(material, sequence, length - len(sequence.ids), chains, 1)
    return sequence


def _chain(material: Material, hops: int, letters: int) -> Chain:
    names = [material.variable(letters) for _ in range(hops)]
    return Chain(names, str(material.rng.randint(10_000, 99_998)))


def _append(
    material: Material, out: Sequence, length: int, chains: list[Chain], number: int
) -> None:
    """Header, noise with the assignments inside, and a question for each chain in any order."""
    tail = Sequence()
    for index, chain in enumerate(material.rng.sample(chains, len(chains))):
        _ask(material, tail, chain, number + index, index > 0 and material.rng.random() < 0.7)
    header = material.fixed(material.templates.vt_header)
    out.add(header)
    placed = []
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
    """The question and the variables along the chain, each behind VAR as in the text; `brief`
    keeps the answer prefix alone.

    The example of the benchmark has one blank more, nothing to learn, and is followed by the real
    question.
    """
    question = material.templates.vt_question.format(query=chain.value, num_v=len(chain.names))
    if len(chain.names[0]) == EXAMPLE_LETTERS:
        out.add(material.encode(f"{question}  {' '.join(chain.names)}"))
        return
    if brief:
        question = "\n" + question[question.index(" Answer:") + 1 :]
    out.add(material.encode(question))
    parts = [material.encode(f" {chain.value}")]
    for place, name in enumerate(chain.names):
        ids = material.encode(f" VAR {name}")
        out.add(ids, answer=number * PARTS + place)
        parts.append(ids[-len(material.encode(name)) :])
    out.add([material.eos], answer=number * PARTS + END)
    out.series.append(Series(parts, chained=True))
