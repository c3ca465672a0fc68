"""A loss that shows attention where to look when several values of a text are to be given in turn.

Left to the loss on the answers alone, one value of four was found and the rest were not within 19
million tokens: the model has to look back at what it gave, and then for what is left.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from nano_sequence import Sequence
    from torch import Tensor

GIVEN_LAYERS = (1, 2)
LEFT_LAYERS = (3, 4)
CONTEXT = 2
"""Tokens before a value that are the same wherever it stands."""


@dataclass(frozen=True)
class Pointer:
    """A token to be chosen: where its alternatives stand, and where those already given do."""

    row: int
    place: int
    """Of the query that predicts the token."""
    left: list[int]
    given: list[int]


def pointers(sequences: list[Sequence]) -> list[Pointer]:
    """One for each choice, in rows of `sequences`."""
    found = []
    for row, sequence in enumerate(sequences):
        ids = sequence.ids
        for index, choice in sequence.choices.items():
            before = ids[index - CONTEXT : index]
            left = [
                t
                for t in range(CONTEXT, index)
                if ids[t] in choice.right and ids[t - CONTEXT : t] == before
            ]
            given = [t for t in sequence.choices if t < index and ids[t] in choice.used]
            if left:
                found.append(Pointer(row, index - 1, left, given))
    return found


@dataclass
class Guide:
    """Collects the loss over the layers of one forward pass."""

    pointers: list[Pointer]
    bias_BT: Tensor
    left: list[Tensor] = field(default_factory=list)
    """A layer each, (N, heads): log of the attention that goes to any of the values left."""
    given: list[Tensor] = field(default_factory=list)
    """Likewise, to the values given already, all alike; of the pointers that have such."""

    def note(self, layer: int, q_BHTD: Tensor, k_BGTD: Tensor) -> None:
        """Take in one layer; `q_BHTD` is scaled."""
        if layer in LEFT_LAYERS and self.pointers:
            logs = zip(self._log_attention(q_BHTD, k_BGTD), self.pointers, strict=True)
            self.left.append(torch.stack([log_HT[:, p.left].logsumexp(-1) for log_HT, p in logs]))
        if layer in GIVEN_LAYERS and any(pointer.given for pointer in self.pointers):
            logs = zip(self._log_attention(q_BHTD, k_BGTD), self.pointers, strict=True)
            even = [
                log_HT[:, p.given].mean(-1) + math.log(len(p.given))
                for log_HT, p in logs
                if p.given
            ]
            self.given.append(torch.stack(even))

    def _log_attention(self, q_BHTD: Tensor, k_BGTD: Tensor) -> list[Tensor]:
        """(H, T) for each pointer."""
        repeats = q_BHTD.shape[1] // k_BGTD.shape[1]
        k_BHTD = k_BGTD.float().repeat_interleave(repeats, dim=1)
        logs = []
        for pointer in self.pointers:
            row, stop = pointer.row, pointer.place + 1
            q_HD1 = q_BHTD[row, :, pointer.place, :, None].float()
            score_HT = (k_BHTD[row, :, :stop] @ q_HD1)[..., 0] + self.bias_BT[row, :stop]
            logs.append(score_HT.log_softmax(-1))
        return logs

    def loss(self) -> Tensor | float:
        """Cross entropy of the mean over heads and layers: one head that looks right is enough."""
        total: Tensor | float = 0.0
        for parts in (self.left, self.given):
            if parts:
                log_NH = torch.cat(parts, dim=1)
                total = total + (math.log(log_NH.shape[1]) - log_NH.logsumexp(-1)).mean()
        return total
