"""The decoder over rows of tokens whose keys and values go to the rows' states."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, cast

import torch

from longspan.models.cache import StoreCache
from longspan.models.decoder import whole
from longspan.models.guesses import Guesses
from longspan.models.sealing import Sealer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from longspan.methods.base import Method
    from longspan.models.base import Observer
    from longspan.models.decoder import Decoder, Row


class Forward:
    """Runs a decoder; `context_tokens` is the length that its rotary frequencies may depend on."""

    def __init__(self, decoder: Decoder, method: Method, context_tokens: int | None) -> None:
        self._decoder = decoder
        self._cache = StoreCache(decoder.windows, method)
        self._guesses = Guesses(decoder.attentions, self._cache)
        self._context_tokens = context_tokens

    def bind(self, rows: Sequence[Row]) -> None:
        """Decode these rows."""
        self._cache.bind([row.states for row in rows], [row.tape for row in rows])

    def chunk(
        self,
        rows: Sequence[Row],
        chunk: Sequence[Sequence[int]],
        *,
        ends: Sequence[bool] = (),
        keep: int = 1,
    ) -> Tensor:
        """Have the rows read a chunk each, left-padded to the longest; the layers of those whose
        prompt `ends` with it may be sealed meanwhile. The logits [B, K, V] after the last `keep`
        tokens.

        What is bound is these rows afterwards.
        """
        width = max(map(len, chunk))
        self._cache.bind([row.states for row in rows])
        self._cache.counts = [len(ids) for ids in chunk]
        self._cache.prompts = [row.prompt for row in rows]
        tokens, positions = [], []
        for row, ids in zip(rows, chunk, strict=True):
            pad = [0] * (width - len(ids))
            tokens.append(pad + list(ids))
            positions.append(pad + list(range(row.length, row.length + len(ids))))
        self._cache.ends = ends
        sealing = Sealer() if any(ends) and self._decoder.overlap_index else nullcontext()
        with whole(rows), sealing as sealer:
            self._cache.sealer = sealer
            logits_BKV = self._run(tokens, positions, decoding=False, keep=keep)
        self._cache.sealer = None
        for row, ids in zip(rows, chunk, strict=True):
            row.length += len(ids)
        return logits_BKV

    def step(self, rows: Sequence[Row], tokens: Sequence[int], observer: Observer | None) -> Tensor:
        """Give each of the rows, which are bound, one more token; the logits [B, V] after it."""
        self._cache.observer = observer
        positions = [[row.length] for row in rows]
        with whole(rows), self._guesses.step():
            return self._run([[token] for token in tokens], positions, decoding=True)[:, -1]

    def _run(
        self,
        tokens: list[list[int]],
        positions: list[list[int]],
        *,
        decoding: bool,
        keep: int = 1,
    ) -> Tensor:
        decoder = self._decoder
        decoder.rotary.set(self._context_tokens)
        self._cache.decoding = decoding
        out = decoder.module(
            input_ids=torch.tensor(tokens, device=decoder.device),
            position_ids=torch.tensor(positions, device=decoder.device),
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=keep,
        )
        return cast("Tensor", out.logits)[:, -keep:].float()
