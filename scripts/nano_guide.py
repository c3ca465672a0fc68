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
"""Where the first token and the values of the key so far are gathered, or the name assigned to."""
NEXT_LAYERS = (3, 4)
"""Where the next value is found."""
MOST_POINTERS = 72
"""A row."""


@dataclass(frozen=True)
class Pointer:
    """A query, at `place`, and the keys that it should attend to, all alike, in some layers."""

    layers: tuple[int, ...]
    place: int
    keys: list[int]


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
    found = []
    for n, (there, here) in enumerate(zip(text, answer, strict=True)):
        found.append(Pointer(GATHER_LAYERS, there, [0, *text[:n]]))
        found.append(Pointer(GATHER_LAYERS, here - 1, [0, *answer[:n]]))
        found.append(Pointer(NEXT_LAYERS, here - 1, [there]))
    return found


def _chain(places: list[list[int]], lengths: list[int]) -> list[Pointer]:
    """For a value and the variables: each is assigned where the one before it stands on the right;
    there, at its last token, the name of the new one is gathered.
    """
    found = []
    for n in range(1, len(places)):
        assigned = places[n - 1][0 if n == 1 else 1] + lengths[n - 1] - 1
        found.append(Pointer(GATHER_LAYERS, assigned, [places[n][0]]))
        found.append(Pointer(NEXT_LAYERS, places[n][-1] - 1, [assigned]))
    return found


@dataclass(frozen=True)
class Targets:
    """Pointers of one row for the same layers, P of them, as tensors."""

    layers: tuple[int, ...]
    row: int
    place_P: Tensor
    key_PT: Tensor
    """Where the keys are, bool."""


def targets(sequences: list[Sequence], length: int, noise: torch.Generator) -> list[Targets]:
    """Up to MOST_POINTERS pointers of each sequence, which is a row of `length` tokens."""
    made = []
    for row, sequence in enumerate(sequences):
        found = pointers(sequence)
        keep = torch.randperm(len(found), generator=noise)[:MOST_POINTERS].tolist()
        for layers in (GATHER_LAYERS, NEXT_LAYERS):
            chosen = [found[n] for n in keep if found[n].layers == layers]
            key_PT = torch.zeros(len(chosen), length, dtype=torch.bool)
            for number, pointer in enumerate(chosen):
                key_PT[number, pointer.keys] = True
            place_P = torch.tensor([pointer.place for pointer in chosen], dtype=torch.int64)
            if chosen:
                made.append(Targets(layers, row, place_P, key_PT))
    return made


@dataclass
class Guide:
    """Collects the loss over the layers of one forward pass."""

    targets: list[Targets]
    bias_BT: Tensor
    logs: dict[tuple[int, ...], dict[int, list[Tensor]]] = field(default_factory=dict)
    """By layers and layer, (heads, P) of a row: log of what each key gets, times their number."""

    def note(self, layer: int, q_BHTD: Tensor, k_BGTD: Tensor) -> None:
        """Take in one layer; `q_BHTD` is scaled."""
        for target in self.targets:
            if layer in target.layers:
                log_HPT = self._log_attention(target, q_BHTD, k_BGTD)
                count_P = target.key_PT.sum(-1)
                alike_HP = log_HPT.masked_fill(~target.key_PT, 0.0).sum(-1) / count_P
                by_layer = self.logs.setdefault(target.layers, {})
                by_layer.setdefault(layer, []).append(alike_HP + count_P.log())

    def _log_attention(self, target: Targets, q_BHTD: Tensor, k_BGTD: Tensor) -> Tensor:
        k_GTD = k_BGTD[target.row].float()
        q_HPD = q_BHTD[target.row][:, target.place_P].float()
        score_HPT = q_HPD @ k_GTD.repeat_interleave(len(q_HPD) // len(k_GTD), dim=0).mT
        later_PT = torch.arange(k_GTD.shape[1], device=k_GTD.device) > target.place_P[:, None]
        score_HPT = (score_HPT + self.bias_BT[target.row]).masked_fill(later_PT, -1e9)
        return score_HPT.log_softmax(-1)

    def loss(self) -> Tensor:
        """Cross entropy of the mean over heads and layers: one head that looks right is enough."""
        total = self.bias_BT.new_zeros(())
        for by_layer in self.logs.values():
            log_NP = torch.cat([torch.cat(rows, dim=1) for rows in by_layer.values()])
            total = total + (math.log(len(log_NP)) - log_NP.logsumexp(0)).mean()
        return total
