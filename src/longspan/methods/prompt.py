"""What a layer keeps of a prompt that was read in full, for states of any method to go on from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from longspan.methods.queries import QuerySample

if TYPE_CHECKING:
    from torch import Tensor

    from longspan.types import LayerGeometry

WINDOW, CAP = 512, 4096
"""Of a prompt's queries: the last ones, and at most so many of the others. A method that learns
from more has to read the prompt itself."""


class LayerPrompt:
    """Keys [G, T, D], values and a sample of the queries, in host memory."""

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens
        self.queries = QuerySample(WINDOW, CAP, torch.device("cpu"))
        self._kv_2GTD: Tensor | None = None
        self._used = 0

    def add(self, q_HQD: Tensor, k_GQD: Tensor, v_GQD: Tensor) -> None:
        """Take the next chunk as the layer's state gets it."""
        if self._kv_2GTD is None:
            groups, _, size = k_GQD.shape
            self._kv_2GTD = torch.empty(2, groups, self.tokens, size, dtype=k_GQD.dtype)
        stop = self._used + k_GQD.shape[1]
        self._kv_2GTD[0, :, self._used : stop] = k_GQD
        self._kv_2GTD[1, :, self._used : stop] = v_GQD
        self._used = stop
        self.queries.add(q_HQD)

    @staticmethod
    def expected_bytes(geometry: LayerGeometry, tokens: int) -> int:
        """The most that so many tokens of a layer take."""
        queries = min(tokens, WINDOW) + min(tokens, CAP)
        vectors = 2 * geometry.kv_heads * tokens + geometry.query_heads * queries
        return vectors * geometry.head_size * geometry.dtype.itemsize

    @property
    def nbytes(self) -> int:
        """Of keys, values and queries."""
        held = 0 if self._kv_2GTD is None else self._kv_2GTD.nbytes
        return held + self.queries.nbytes

    @property
    def kv_GTDs(self) -> tuple[Tensor, Tensor]:
        """Keys and values. RuntimeError before the last token of the prompt."""
        if self._kv_2GTD is None or self._used < self.tokens:
            raise RuntimeError(f"{self._used} of {self.tokens} tokens are read")
        return self._kv_2GTD[0], self._kv_2GTD[1]
