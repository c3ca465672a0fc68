"""H2O, simulated slowly: sums in lists of numbers, one query, head and token at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from longspan.types import Partial

if TYPE_CHECKING:
    from tests.methods.cases import Layer

    from longspan.methods.h2o import H2O

Slots = list[list[int]]
"""Of each KV head."""


class Slow:
    """One layer of one sequence; every event is to follow the one before."""

    def __init__(self, given: Layer, method: H2O) -> None:
        self.given, self.method = given, method
        self.groups = given.geometry.kv_heads
        self.sums: list[list[float]] = [[] for _ in range(self.groups)]
        self.heavy: Slots | None = None
        self.room: int | None = None

    @property
    def tokens(self) -> int:
        return len(self.sums[0])

    def row(self, position: int, read: Slots) -> Partial:
        """One query attends these slots, the last of which is its own."""
        heads = self.given.geometry.query_heads // self.groups
        z_HT, outs, lses = self.given.scores(position, position + 1), [], []
        for group, slots in enumerate(read):
            self.sums[group].append(0.0)
            for head in range(group * heads, (group + 1) * heads):
                weight_K = z_HT[head, slots].softmax(-1)
                outs.append(weight_K @ self.given.v_GTD[group, slots].double())
                lses.append(z_HT[head, slots].logsumexp(-1))
                for slot, weight in zip(slots, weight_K.tolist(), strict=True):
                    self.sums[group][slot] += weight / heads
        return Partial(torch.stack(outs).float(), torch.stack(lses).float())

    def score(self, group: int, slot: int) -> float:
        total = self.sums[group][slot]
        return total if self.method.score == "sum" else total / (self.tokens - slot)

    def prompt(self, stop: int) -> None:
        """Everything is seen by everything behind it; then the choice is made anew."""
        for position in range(self.tokens, stop):
            self.row(position, [list(range(position + 1))] * self.groups)
        self.heavy, self.room = None, self.method.kept(stop, 0)
        if self.room is not None and stop > self.room:
            self.choose(stop)

    def choose(self, tokens: int) -> None:
        assert self.room is not None
        rivals = range(tokens - (self.room - self.room // 2))
        self.heavy = [
            sorted(sorted(rivals, key=lambda slot: -self.score(group, slot))[: self.room // 2])
            for group in range(self.groups)
        ]

    def step(self) -> Partial:
        position = self.tokens
        if self.room is None or position < self.room:
            return self.row(position, [list(range(position + 1))] * self.groups)
        recent = self.room - self.room // 2
        if self.heavy is None:
            self.choose(position + 1)
        else:
            for group, kept in enumerate(self.heavy):
                kept.append(position - recent)
                kept.remove(min(kept, key=lambda slot: self.score(group, slot)))
        assert self.heavy is not None
        last = list(range(position + 1 - recent, position + 1))
        return self.row(position, [kept + last for kept in self.heavy])
