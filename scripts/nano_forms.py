"""Forms of needle sequences: what they hide, in what, and how they ask for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from nano_sequence import Material


@dataclass(frozen=True)
class Form:
    """What a needle sequence looks like."""

    kind: str
    """numbers or uuids: the values."""
    hay: str
    """noise, prose or needle."""
    uuid_keys: bool
    exact: str
    """A form of the evaluation: `single` (one of one to four keys), `values` (four of one key),
    `queries` (four keys at once). Empty: none of them, many keys and questions."""
    several: bool = False
    """Most keys have two to four values."""


EXACT: Final = ("single", "queries")


def choose_form(material: Material, length: int, exact: bool, values: bool) -> Form:
    """Draw a form that fits `length` tokens; `values` asks for keys with several values."""
    rng = material.rng
    kind = "numbers" if rng.random() < 0.85 else "uuids"
    hay = rng.choices(("noise", "prose", "needle"), (3, 5, 3))[0]
    uuid_keys = rng.random() < (0.3 if hay == "needle" and length > 400 else 0.02)
    if values:
        return Form("numbers", hay, uuid_keys, "values" if exact else "", several=True)
    kinds = EXACT if hay == "prose" and length > 250 else EXACT[:1]
    return Form(kind, hay, uuid_keys, rng.choice(kinds) if exact else "")
