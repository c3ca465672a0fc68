"""The prefill queries that an index learns from: the last ones, and an even sample of the rest."""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor


class QuerySample:
    """Keeps the last `window` queries of a prompt and at most `cap` evenly spaced earlier ones.

    The prompt's length is not known ahead: every query is sampled until the cap is reached, then
    every second one of them is dropped and the stride doubles. RetrievalAttention samples the
    prompt's queries for training; the share it takes is not published.
    """

    def __init__(self, window: int, cap: int, device: torch.device | None = None) -> None:
        """On a device; None: where the queries are."""
        self.window, self.cap, self.device = window, cap, device
        self._seen = 0
        self._stride = 1
        self._even_HSD: Tensor | None = None  # positions 0, stride, 2 * stride, ...
        self._last_HSD: Tensor | None = None

    def add(self, q_HQD: Tensor) -> None:
        """Take the queries of the next chunk; what is kept is copied."""
        total = self._seen + q_HQD.shape[1]
        while self.cap and -(-total // self._stride) > self.cap:
            self._stride *= 2
            if self._even_HSD is not None:
                self._even_HSD = self._even_HSD[:, ::2]
        if self.cap:
            even_HSD = q_HQD[:, -self._seen % self._stride :: self._stride].to(self.device)
            self._even_HSD = joined(self._even_HSD, even_HSD)
        if self.window:
            last_HSD = q_HQD[:, -self.window :].to(self.device)
            self._last_HSD = joined(self._last_HSD, last_HSD)[:, -self.window :]
        self._seen = total

    def queries(self) -> Tensor | None:
        """[H, S, D]: the even sample, then the last queries in order; None before any was seen."""
        early_HSD, last_HSD = self._even_HSD, self._last_HSD
        if early_HSD is None or last_HSD is None:
            return last_HSD if early_HSD is None else early_HSD
        unique = -(-(self._seen - last_HSD.shape[1]) // self._stride)
        return torch.cat([early_HSD[:, :unique], last_HSD], dim=1)

    def covers(self, other: QuerySample) -> bool:
        """Whether `narrowed` can tell what the other would hold."""
        return other.window <= self.window and other.cap <= self.cap

    def narrowed(self, other: QuerySample, device: torch.device) -> QuerySample:
        """What the other, a smaller one, would hold had it seen the same prompt."""
        twin = QuerySample(other.window, other.cap)
        twin._seen = self._seen
        if twin.window and self._last_HSD is not None:
            twin._last_HSD = self._last_HSD[:, -twin.window :].to(device)
        if twin.cap and self._even_HSD is not None:
            while -(-self._seen // twin._stride) > twin.cap:
                twin._stride *= 2
            twin._even_HSD = self._even_HSD[:, :: twin._stride // self._stride].to(device)
        return twin

    @property
    def last_HD(self) -> Tensor:
        """The last query. RuntimeError where none is kept."""
        if self._last_HSD is None:
            raise RuntimeError("no query was seen, or none of the last ones is kept")
        return self._last_HSD[:, -1]

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return sum(0 if each is None else each.nbytes for each in (self._even_HSD, self._last_HSD))

    def fork(self) -> QuerySample:
        """A second sample that goes on from here."""
        return copy(self)


def joined(old_HSD: Tensor | None, new_HSD: Tensor) -> Tensor:
    """A fresh tensor of both."""
    return new_HSD.clone() if old_HSD is None else torch.cat([old_HSD, new_HSD], dim=1)
