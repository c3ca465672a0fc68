"""Needle sequences: many needles in noise, prose or other needles, then one or many questions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nano_sequence import END, LEAD, PARTS, Sequence, Series

if TYPE_CHECKING:
    from nano_forms import Form
    from nano_sequence import Material

QUESTION_TOKENS = 45
NEEDLE_TOKENS = {"numbers": 16, "uuids": 34}


def niah_sequence(material: Material, length: int, form: Form) -> Sequence:
    """A sequence of about `length` tokens."""
    rng = material.rng
    keys, asked = _keys(material, length, form)
    table = _table(material, keys, form)
    needles = [(key, value) for key, values in table.items() for value in values]
    rng.shuffle(needles)
    for key in table:
        table[key] = [value for other, value in needles if other == key]
    groups = [keys[:asked]] if form.exact else _groups(material, keys, table, asked)
    tail = Sequence()
    for number, group in enumerate(groups):
        asked_keys = [(key, table[key]) for key in group]
        _ask(material, tail, form.kind, asked_keys, number, number > 0 and rng.random() < 0.7)
    plural = any(len(group) > 1 or len(table[group[0]]) > 1 for group in groups)
    sequence = Sequence()
    sequence.add(material.fixed(material.templates.headers[form.kind, plural] + "\n"))
    lead = " " if form.hay == "prose" else ""
    lines = [_needle(material, form.kind, key, value, lead) for key, value in needles]
    space = length - len(sequence.ids) - len(tail.ids) - sum(len(line) + 1 for line in lines)
    joint = [] if form.hay == "prose" else material.fixed("\n")
    _interleave(material, sequence, lines, _units(material, form, space), joint)
    sequence.extend(tail)
    return sequence


def _needle(material: Material, kind: str, key: str, value: str, lead: str) -> list[int]:
    text: str = material.templates.needle.format(type_needle_v=kind, key=key, value=value)
    ids: list[int] = material.encode(lead + text)
    return ids


def _keys(material: Material, length: int, form: Form) -> tuple[list[str], int]:
    """Different keys and how many of them are asked about."""
    rng = material.rng
    cost = NEEDLE_TOKENS[form.kind] + (16 if form.uuid_keys else 0)
    if form.exact:
        most = {"single": rng.choice((1, 4)), "values": 1, "queries": 4}[form.exact]
        asked = most if form.exact == "queries" else 1
        most = max(asked, min(most, int(length * 0.4) // cost))
        unasked = most - asked
    else:
        most = min(24, max(1, int(length * 0.65) // (cost + QUESTION_TOKENS)))
        asked = max(1, min(most, rng.choice((1, 2, 4, 4, 8, 16, 24))))
        unasked = rng.randint(0, min(40, int(length * 0.2) // cost))
    make = material.unique_id if form.uuid_keys else material.word
    keys = list(dict.fromkeys(make() for _ in range(asked + unasked)))
    if len(keys) > 1 and not form.uuid_keys and rng.random() < 0.3:
        _confuse(material, keys)
    return keys, asked


def _confuse(material: Material, keys: list[str]) -> None:
    """Give some keys a half in common, so that one word is not enough to match."""
    for index in range(1, len(keys)):
        if material.rng.random() < 0.5:
            first, second = keys[index - 1].split("-", 1), keys[index].split("-", 1)
            mixed = material.rng.choice((f"{first[0]}-{second[1]}", f"{second[0]}-{first[1]}"))
            if mixed not in keys:
                keys[index] = mixed


def _table(material: Material, keys: list[str], form: Form) -> dict[str, list[str]]:
    """Values by key: one, or two to four of most keys, in the evaluation's form four."""
    rng = material.rng
    counts = dict.fromkeys(keys, 4 if form.several else 1)
    if form.several and not form.exact:
        counts = {key: rng.choice((2, 3, 4, 4)) if rng.random() < 0.8 else 1 for key in keys}
    return {key: [material.value(form.kind) for _ in range(n)] for key, n in counts.items()}


def _groups(
    material: Material, keys: list[str], table: dict[str, list[str]], most: int
) -> list[list[str]]:
    """Groups of keys asked together; keys with several values are asked alone."""
    rng = material.rng
    order = rng.sample(keys, len(keys))
    groups: list[list[str]] = []
    while order and len(groups) < most:
        single = [key for key in order if len(table[key]) == 1]
        if len(single) >= 2 and rng.random() < 0.3:
            group = single[: rng.choice((2, 3, 4, 4, 4))]
        else:
            group = [order[0]]
        groups.append(group)
        order = [key for key in order if key not in group]
    return groups


def _ask(
    material: Material,
    out: Sequence,
    kind: str,
    group: list[tuple[str, list[str]]],
    number: int,
    brief: bool,
) -> None:
    """One question and its answer: before each value its key again.

    Several values come in order of the text. Naming the key first makes the text before a value
    the same as in the needle.

    `brief` leaves the question out and keeps the answer prefix, for more answers a sequence.
    """
    plural = len(group) > 1 or len(group[0][1]) > 1
    names = [key for key, _ in group]
    query = ", ".join(names[:-1]) + ", and " + names[-1] if len(names) > 1 else names[0]
    question = material.templates.questions[kind, plural].replace("{query}", query)
    if brief:
        question = question[question.index("? ") + 2 :]
    out.add(material.encode("\n" + question))
    part = number * PARTS
    for index, (key, values) in enumerate(group):
        for position, value in enumerate(values):
            lead = f", {key} is:" if index + position else f" {key} is:"
            out.add(material.encode(lead), answer=number * PARTS + LEAD)
            out.add(material.encode(f" {value}"), answer=part)
            part += 1
        if len(values) > 1:
            out.series.append(Series([material.encode(f" {v}") for v in values], chained=False))
    out.add([material.eos], answer=number * PARTS + END)


def _units(material: Material, form: Form, space: int) -> list[list[int]]:
    """Haystack units that fill at most `space` tokens."""
    if form.hay == "noise":
        noise = material.fixed(material.templates.noise)
        return [noise] * max(0, space // (len(noise) + 1))
    units: list[list[int]] = []
    start = material.rng.randrange(len(material.prose))
    while space > 0:
        if form.hay == "prose":
            unit = material.prose[(start + len(units)) % len(material.prose)]
        else:
            key = material.unique_id() if form.uuid_keys else material.word()
            unit = [*_needle(material, form.kind, key, material.value(form.kind), "")]
        space -= len(unit) + (form.hay != "prose")
        if space >= 0:
            units.append(unit)
    return units


def _interleave(
    material: Material,
    out: Sequence,
    lines: list[list[int]],
    units: list[list[int]],
    joint: list[int],
) -> None:
    """Units of haystack with the needles between; `joint` stands between neighbours."""
    places = sorted(material.rng.randint(0, len(units)) for _ in lines)
    run, cursor, before = 1, 0, list[int]()
    for index in range(len(units) + 1):
        while cursor < len(places) and places[cursor] == index:
            out.add(before + lines[cursor])
            cursor, before, run = cursor + 1, joint, run + 1
        if index < len(units):
            out.add(before + units[index], run=run)
            before = joint
