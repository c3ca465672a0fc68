"""A loss that shows attention where to look when several values of a text are to be given in turn.

Left to the loss on the answers alone, one value of four was found and the rest were not within 19
million tokens. Values of one key are found by their predecessors: each value of the text gathers
the values of its key before it, the answer gathers those given, and the next value is the one where
the two agree. A chain of variables is followed from the place where the last one is assigned on,
which gathers the name that it is assigned to.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from nano_sequence import Sequence
    from torch import Tensor

GATHER_LAYERS = (2,)
NEXT_LAYERS = (3, 4)
MOST_POINTERS = 48
"""A row."""


@dataclass(frozen=True)
class Pointer:
    """A query, at `place`, and the keys it should attend to."""

    place: int
    following: list[int]
    """To any of these, in NEXT_LAYERS: where the next value stands."""
    before: list[int]
    """To all of these alike, in GATHER_LAYERS: the first token and the values of the key so far, or
    the name that is assigned to."""


def pointers(sequence: Sequence) -> list[Pointer]:
    """Of all series of the sequence, in the haystack and in the answers."""
    found: list[Pointer] = []
    starts: dict[int, list[int]] = {}
    for index, token in enumerate(sequence.ids):
        starts.setdefault(token, []).append(index)
    for series in sequence.series:
        places = [
            [i for i in starts[part[0]] if sequence.ids[i : i + len(part)] == part]
            for part in series.parts
        ]
        if series.chained:
            found += _chain(places, [len(part) for part in series.parts])
        else:
            found += _values(places)
    return found


def _values(places: list[list[int]]) -> list[Pointer]:
    """For values that stand once in the haystack and once in the answer; the first token has as
    large a share as each value before, which tells how many there are.
    """
    text, answer = [p[0] for p in places], [p[-1] for p in places]
    found = [Pointer(place, [], [0, *text[:n]]) for n, place in enumerate(text)]
    return found + [
        Pointer(place - 1, [text[n]], [0, *answer[:n]]) for n, place in enumerate(answer)
    ]


def _chain(places: list[list[int]], lengths: list[int]) -> list[Pointer]:
    """For a value and the variables: each is assigned where the one before it stands on the right;
    there, at its last token, the name of the new one is gathered.
    """
    found = []
    for n in range(1, len(places)):
        assigned = places[n - 1][0 if n == 1 else 1] + lengths[n - 1] - 1
        found.append(Pointer(assigned, [], [places[n][0]]))
        found.append(Pointer(places[n][-1] - 1, [assigned], []))
    return found


@dataclass(frozen=True)
class Targets:
    """Pointers of one row, P of them, as tensors."""

    place_P: Tensor
    following_PT: Tensor
    before_PT: Tensor


def targets(
    sequence: Sequence, width: int, noise: torch.Generator, device: torch.device
) -> Targets:
    """Up to MOST_POINTERS pointers of a sequence, in a row of `width` tokens."""
    found = pointers(sequence)
    keep = torch.randperm(len(found), generator=noise)[:MOST_POINTERS].tolist()
    place_P = torch.tensor([found[n].place for n in keep], dtype=torch.int64)
    marks_2PT = torch.zeros(2, len(keep), width, dtype=torch.bool)
    for row, n in enumerate(keep):
        marks_2PT[0, row, found[n].following] = True
        marks_2PT[1, row, found[n].before] = True
    return Targets(place_P.to(device), *marks_2PT.to(device))


@dataclass
class Guide:
    """Collects the loss over the layers of one forward pass."""

    rows: list[Targets]
    bias_BT: Tensor
    following: dict[int, list[Tensor]] = field(default_factory=dict)
    """By layer (heads, P) of a row: log of the attention that goes to any of the keys."""
    before: dict[int, list[Tensor]] = field(default_factory=dict)
    """Likewise, to all of them alike."""

    def note(self, layer: int, q_BHTD: Tensor, k_BGTD: Tensor) -> None:
        """Take in one layer; `q_BHTD` is scaled."""
        for row, target in enumerate(self.rows):
            if layer in NEXT_LAYERS and target.following_PT.any():
                log_HPT, marks_PT = self._attention(row, target.following_PT, q_BHTD, k_BGTD)
                any_HP = log_HPT.masked_fill(~marks_PT, float("-inf")).logsumexp(-1)
                self.following.setdefault(layer, []).append(any_HP)
            if layer in GATHER_LAYERS and target.before_PT.any():
                log_HPT, marks_PT = self._attention(row, target.before_PT, q_BHTD, k_BGTD)
                count_P = marks_PT.sum(-1)
                alike_HP = log_HPT.masked_fill(~marks_PT, 0.0).sum(-1) / count_P + count_P.log()
                self.before.setdefault(layer, []).append(alike_HP)

    def _attention(
        self, row: int, marks_PT: Tensor, q_BHTD: Tensor, k_BGTD: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Log attention (heads, P', T) of the pointers that have marks, and their marks."""
        keep_P = marks_PT.any(-1)
        place_P = self.rows[row].place_P[keep_P]
        k_GTD = k_BGTD[row].float()
        q_HPD = q_BHTD[row][:, place_P].float()
        score_HPT = q_HPD @ k_GTD.repeat_interleave(len(q_HPD) // len(k_GTD), dim=0).mT
        later_PT = torch.arange(k_GTD.shape[1], device=place_P.device) > place_P[:, None]
        score_HPT = (score_HPT + self.bias_BT[row]).masked_fill(later_PT, -1e9)
        return score_HPT.log_softmax(-1), marks_PT[keep_P]

    def loss(self) -> Tensor:
        """Cross entropy of the mean over heads and layers: one head that looks right is enough."""
        total = self.bias_BT.new_zeros(())
        for parts in (self.following, self.before):
            if parts:
                log_NP = torch.cat([torch.cat(rows, dim=1) for rows in parts.values()])
                total = total + (math.log(len(log_NP)) - log_NP.logsumexp(0)).mean()
        return total
