"""What the operations take and return."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor


class Partial(NamedTuple):
    """Attention over a part of the tokens: softmax-normalised within the part, with its log-sum-
    exp.

    `out` is float32 [H, D] (decode) or [H, Q, D] (prefill), `lse` float32 [H] or [H, Q]; natural
    logarithm of the
    sum of exponentials of the scaled, soft-capped scores. An empty part is out = 0, lse = -inf.
    """

    out: Tensor
    lse: Tensor


@dataclass(frozen=True, slots=True)
class Runs:
    """Which entries to read: row n has `count_N[n]` runs, run i covers [start_NK[n, i], start_NK[n,
    i] + size).

    int32. `size_NK` None means that every run is one entry long. N is G (shared by a group) or H
    (one row a query
    head). Entries of a row beyond its count are unspecified; runs of a row never overlap.
    """

    start_NK: Tensor
    size_NK: Tensor | None
    count_N: Tensor
