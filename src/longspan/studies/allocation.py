"""How a mean budget is divided among the layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PYRAMID = 20.0
"""PyramidKV (arXiv 2406.02069): the mean over the top layer's share."""


def pyramid(mean: float, layers: int, slope: float = PYRAMID) -> tuple[float, ...]:
    """Shares that fall in equal steps from 2 mean - mean / slope to mean / slope, or, where that
    would be more than everything, from 1 to 2 mean - 1.
    """
    if layers == 1:
        return (mean,)
    most = min(2 * mean - mean / slope, 1.0)
    step = 2 * (most - mean) / (layers - 1)
    return tuple(most - step * layer for layer in range(layers))


def calibrated(mean: float, curves: Sequence[Mapping[float, float]]) -> tuple[float, ...]:
    """Of every layer one of the shares that it was measured at, the mean at most `mean`, so that
    the sum of what they recover is large.

    `curves`: by layer, what a share recovers. All begin at their least share; whichever next step
    gains most for its price is taken while it is affordable (the best there is for concave curves).
    """
    ladders = [sorted(curve) for curve in curves]
    places = [0] * len(curves)
    left = mean * len(curves) - sum(ladder[0] for ladder in ladders)
    if left < 0:
        raise ValueError(f"mean = {mean}: less than the least shares measured take together")
    while True:
        steps = []
        for layer, (ladder, curve) in enumerate(zip(ladders, curves, strict=True)):
            here = ladder[places[layer]]
            for place in range(places[layer] + 1, len(ladder)):
                price = ladder[place] - here
                if price <= left + 1e-9:
                    gain = curve[ladder[place]] - curve[here]
                    steps.append((gain / price, layer, place, price))
        if not steps:
            return tuple(ladder[place] for ladder, place in zip(ladders, places, strict=True))
        _, layer, place, price = max(steps)
        places[layer], left = place, left - price
