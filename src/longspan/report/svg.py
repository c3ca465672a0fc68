"""Drawing: scales, ticks, marks; every number of a mark is in its tip."""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

SHAPES = (
    "M-5 0a5 5 0 1 0 10 0a5 5 0 1 0 -10 0z",  # disc
    "M-4.5 -4.5h9v9h-9z",  # square
    "M0 -6L5.5 4.5h-11z",  # triangle
    "M0 -6L6 0L0 6L-6 0z",  # diamond
    "M0 6L5.5 -4.5h-11z",  # triangle on its tip
    "M-2 -6h4v4h4v4h-4v4h-4v-4h-4v-4h4z",  # cross
    "M0 -6L5.7 -1.9L3.5 4.9H-3.5L-5.7 -1.9z",  # pentagon
    "M-6 -2.5h12v5h-12z",  # bar
)
COLOURS = 10
"""Colours of the style sheet: .c0 to .c9."""
STEPS = 16
"""Steps of a heat map's colour: .h0 to .h15."""


@dataclass(frozen=True)
class Scale:
    """From values to places on the page."""

    low: float
    high: float
    start: float
    stop: float
    kind: Literal["linear", "log", "root"] = "linear"

    def __call__(self, value: float) -> float:
        """The place of a value."""
        low, high, here = (self._bent(each) for each in (self.low, self.high, value))
        share = (here - low) / (high - low) if high > low else 0.5
        return round(self.start + share * (self.stop - self.start), 1)

    def _bent(self, value: float) -> float:
        if self.kind == "log":
            return math.log10(max(value, 1e-12))
        return math.sqrt(max(value, 0.0)) if self.kind == "root" else value

    def ticks(self) -> list[float]:
        """Round values to write along it."""
        if self.kind == "log":
            first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
            factors = (1, 2, 5) if last - first <= 2 else (1,)
            every = [f * 10.0**power for power in range(first, last + 1) for f in factors]
            return [tick for tick in every if self.low <= tick <= self.high]
        if self.kind == "root":
            every = [0.0, 0.2, 1, 5, 10, 20, 40, 60, 80, 100, 200, 400]
            return [tick for tick in every if self.low <= tick <= self.high]
        step = nice((self.high - self.low) / 4 or 1.0)
        first = math.ceil(self.low / step - 1e-9)
        return [number * step for number in range(first, math.floor(self.high / step + 1e-9) + 1)]


def nice(step: float) -> float:
    """The next of 1, 2, 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(step))
    return power * next(f for f in (1, 2, 5, 10) if f * power >= step * 0.999)


def around(values: Sequence[float], *, kind: Literal["linear", "log"]) -> tuple[float, float]:
    """Bounds with some air around the values."""
    low, high = min(values), max(values)
    if kind == "log":
        return low / 1.6, high * 1.6
    air = (high - low) * 0.08 or max(abs(high) * 0.05, 1.0)
    return low - air, high + air


def coloured(colour: int) -> str:
    """The classes of what is drawn of a method: its colour, which another may have too, and its
    own.
    """
    return f"c{colour % COLOURS} m{colour}"


def mark(colour: int, x: float, y: float, tip: str) -> str:
    """A point in its method's colour and shape."""
    shape = SHAPES[colour % len(SHAPES)]
    return (
        f'<g class="mark {coloured(colour)}" {tipped(tip)} transform="translate({x} {y})">'
        f'<path d="{shape}"/></g>'
    )


def tipped(tip: str) -> str:
    """Attributes of something that shows a tip to pointer, keyboard and screen reader."""
    text = escape(tip)
    return f'tabindex="0" role="img" aria-label="{text}" data-tip="{text}"'


def text(x: float, y: float, words: str, kind: str = "") -> str:
    """Words on the page; `kind` is a class of the style sheet."""
    return f'<text x="{x}" y="{y}" class="{kind}">{escape(words)}</text>'


def line(points: Sequence[tuple[float, float]], kind: str) -> str:
    """A line through points."""
    path = "L".join(f"{x} {y}" for x, y in points)
    return f'<path class="{kind}" d="M{path}"/>'


def picture(width: float, height: float, body: Sequence[str], name: str, kind: str = "") -> str:
    """A whole drawing; `name` is read to those who do not see it."""
    return (
        f'<svg class="{kind}" viewBox="0 0 {width:g} {height:g}" role="group" '
        f'aria-label="{escape(name)}">{"".join(body)}</svg>'
    )


def step_of(share: float) -> int:
    """The step of the colour scale for 0..1."""
    return min(STEPS - 1, max(0, math.floor(share * STEPS)))


def counted(value: float) -> str:
    """A tick in few letters: 1500000 is 1.5M."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"
