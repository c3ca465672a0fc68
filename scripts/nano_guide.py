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
    """Up to P pointers of each row for the same layers, as tensors."""

    layers: tuple[int, ...]
    place_BP: Tensor
    key_BPT: Tensor
    """Where the keys are, bool; a pointer without keys is none."""


def targets(sequences: list[Sequence], length: int, noise: torch.Generator) -> list[Targets]:
    """Up to MOST_POINTERS pointers of each sequence, which is a row of `length` tokens."""
    kept = []
    for sequence in sequences:
        found = pointers(sequence)
        keep = torch.randperm(len(found), generator=noise)[:MOST_POINTERS].tolist()
        kept.append([found[n] for n in keep])
    made = (_targets(layers, kept, length) for layers in (GATHER_LAYERS, NEXT_LAYERS))
    return [target for target in made if target.place_BP.numel()]


def _targets(layers: tuple[int, ...], kept: list[list[Pointer]], length: int) -> Targets:
    rows = [[pointer for pointer in row if pointer.layers == layers] for row in kept]
    most = max(len(row) for row in rows)
    place_BP = torch.zeros(len(rows), most, dtype=torch.int64)
    key_BPT = torch.zeros(len(rows), most, length, dtype=torch.bool)
    for row, chosen in enumerate(rows):
        for number, pointer in enumerate(chosen):
            place_BP[row, number] = pointer.place
            key_BPT[row, number, pointer.keys] = True
    return Targets(layers, place_BP, key_BPT)


@dataclass
class Guide:
    """Collects the loss over the layers of one forward pass."""

    targets: list[Targets]
    bias_BT: Tensor
    logs: dict[tuple[int, ...], list[Tensor]] = field(default_factory=dict)
    """By layers, (heads, pointers) of each: log of what each key gets, times their number."""

    def note(self, layer: int, q_BHTD: Tensor, k_BGTD: Tensor) -> None:
        """Take in one layer; `q_BHTD` is scaled."""
        for target in self.targets:
            if layer in target.layers:
                log_BHPT = self._log_attention(target, q_BHTD, k_BGTD)
                key_B1PT = target.key_BPT[:, None]
                count_B1P = key_B1PT.sum(-1)
                sum_BHP = log_BHPT.masked_fill(~key_B1PT, 0.0).sum(-1)
                alike_BHP = sum_BHP / count_B1P.clamp(min=1) + count_B1P.clamp(min=1).log()
                log_HN = alike_BHP.transpose(0, 1)[:, count_B1P[:, 0] > 0]
                self.logs.setdefault(target.layers, []).append(log_HN)

    def _log_attention(self, target: Targets, q_BHTD: Tensor, k_BGTD: Tensor) -> Tensor:
        heads, width = q_BHTD.shape[1], q_BHTD.shape[3]
        k_BHTD = k_BGTD.float().repeat_interleave(heads // k_BGTD.shape[1], dim=1)
        at_BHPD = target.place_BP[:, None, :, None].expand(-1, heads, -1, width)
        score_BHPT = q_BHTD.float().gather(2, at_BHPD) @ k_BHTD.mT
        token_T = torch.arange(k_BGTD.shape[2], device=k_BGTD.device)
        later_BPT = token_T > target.place_BP[..., None]
        score_BHPT = score_BHPT + self.bias_BT[:, None, None]
        return score_BHPT.masked_fill(later_BPT[:, None], -1e9).log_softmax(-1)

    def loss(self) -> Tensor:
        """Cross entropy of the mean over heads and layers: one head that looks right is enough."""
        total = self.bias_BT.new_zeros(())
        for by_layer in self.logs.values():
            log_XN = torch.cat(by_layer)
            total = total + (math.log(len(log_XN)) - log_XN.logsumexp(0)).mean()
        return total
