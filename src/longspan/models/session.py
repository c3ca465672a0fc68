"""A session on a Hugging Face decoder: chunked prefill, decoding, forks and views."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, cast

import torch

from longspan.models.base import Session
from longspan.models.cache import StoreCache
from longspan.models.graphs import opened
from longspan.models.room import check_lengths, check_room
from longspan.models.sealing import Sealer
from longspan.models.tape import Tape, play
from longspan.prefill.full import FullPrefill

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import Tensor

    from longspan.methods.base import LayerState, Method
    from longspan.models.base import Observer
    from longspan.models.decoder import Decoder, Row
    from longspan.models.static import StaticStep

PIECE = 64
"""Tokens whose logits `logits_after` holds at once."""


class StoreSession(Session):
    """Rows of any length side by side: padding is cut off before anything is stored."""

    def __init__(
        self, decoder: Decoder, method: Method, rows: Sequence[Row], max_tokens: int | None
    ) -> None:
        self.observer: Observer | None = None
        self._decoder = decoder
        self._method = method
        self._rows = list(rows)
        self._limit = max_tokens
        self._cache = StoreCache(decoder.windows, method)
        self._by_states = decoder.graphs == "off"  # whatever else there is
        self._bind()

    @torch.inference_mode()
    def prefill(
        self, rows: Sequence[Sequence[int]], progress: Callable[[int], None] | None = None
    ) -> Tensor:
        """See Session.prefill. A chunk runs only the rows that have tokens in it."""
        limits = [n for n in (self._limit, self._decoder.max_positions) if n is not None]
        check_lengths(self._rows, rows, min(limits, default=None))
        check_room(self._method, self._decoder.geometries, map(len, rows))
        longest = max(len(ids) for ids in rows)
        for row in self._rows:
            row.leave()
        for first in range(0, longest, self._decoder.chunk_tokens):
            stop = min(first + self._decoder.chunk_tokens, longest)
            # rows end together: a row stands at columns [longest - len(ids), longest)
            part = {
                number: ids[max(0, len(ids) - longest + first) : len(ids) - longest + stop]
                for number, ids in enumerate(rows)
                if len(ids) > longest - stop
            }
            logits_BKV = self._read(part, last=stop == longest)
            for number, logits_V in zip(part, logits_BKV[:, -1], strict=True):
                self._rows[number].logits_V = logits_V
            if progress is not None:
                progress(stop)
        for row, ids in zip(self._rows, rows, strict=True):
            if ids:
                for state in row.states:
                    state.seal()
        self._bind()
        return self._logits()

    def logits_after(self, row: int, tokens: Sequence[int]) -> Iterator[Tensor]:
        """See Session.logits_after. Reads in pieces, each when its first logits are asked for."""
        twin = self._with([self._rows[row].fork()])
        check_lengths(twin._rows, [tokens], self._most)
        self._decoder.attend_by(FullPrefill(), twin._rows[0].states)
        return twin._read_on(tokens)

    @torch.inference_mode()
    def _read_on(self, tokens: Sequence[int]) -> Iterator[Tensor]:
        for first in range(0, len(tokens), PIECE):
            piece = tokens[first : first + PIECE]
            (logits_KV,) = self._read({0: piece}, last=False, keep=len(piece))
            yield from logits_KV

    def _read(self, part: dict[int, Sequence[int]], *, last: bool, keep: int = 1) -> Tensor:
        """Read one chunk of the rows in `part`, left-padded to its longest; where it is the last,
        layers may be sealed meanwhile. The logits [B, K, V] after the last `keep` tokens.
        """
        width = max(len(ids) for ids in part.values())
        rows = [self._rows[number] for number in part]
        self._cache.bind([row.states for row in rows])
        self._cache.counts = [len(ids) for ids in part.values()]
        tokens, positions = [], []
        for row, ids in zip(rows, part.values(), strict=True):
            pad = [0] * (width - len(ids))
            tokens.append(pad + list(ids))
            positions.append(pad + list(range(row.length, row.length + len(ids))))
        with Sealer() if last and self._decoder.overlap_index else nullcontext() as sealer:
            self._cache.sealer = sealer
            logits_BKV = self._forward(tokens, positions, decoding=False, keep=keep)
        self._cache.sealer = None
        for row, ids in zip(rows, part.values(), strict=True):
            row.length += len(ids)
        return logits_BKV

    @torch.inference_mode()
    def decode(self, tokens: Sequence[int]) -> Tensor:
        """See Session.decode."""
        check_lengths(self._rows, [[token] for token in tokens], self._most)
        self._decoder.rotary.set(self._limit)
        if (step := self._static()) is not None:
            logits_BV = step.decode(self._rows, tokens)
        else:
            self._cache.observer = self.observer
            positions = [[row.length] for row in self._rows]
            new = [[token] for token in tokens]
            logits_BV = self._forward(new, positions, decoding=True)[:, -1]
        for row, logits_V in zip(self._rows, logits_BV, strict=True):
            row.length += 1
            row.logits_V = logits_V
        return logits_BV

    def _static(self) -> StaticStep | None:
        """What decodes these rows on fixed buffers; None where their states do."""
        step = self._rows[0].static
        if step is not None and self.observer is None and step.holds(self._rows):
            return step
        for row in self._rows:
            row.leave()
        if self._by_states or self.observer is not None:
            return None
        step = opened(self._decoder, self._method, self._rows, self._limit)
        self._by_states = step is None
        return step

    def _forward(
        self,
        tokens: list[list[int]],
        positions: list[list[int]],
        *,
        decoding: bool,
        keep: int = 1,
    ) -> Tensor:
        decoder = self._decoder
        decoder.rotary.set(self._limit)
        self._cache.decoding = decoding
        out = decoder.module(
            input_ids=torch.tensor(tokens, device=decoder.device),
            position_ids=torch.tensor(positions, device=decoder.device),
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=keep,
        )
        return cast("Tensor", out.logits)[:, -keep:].float()

    def record(self) -> None:
        """See Session.record."""
        for row in self._rows:
            row.tape = Tape(len(row.states))
        self._bind()

    def recorded(self, row: int) -> bytes:
        """See Session.recorded."""
        tape = self._rows[row].tape
        return b"" if tape is None else tape.cut()

    @torch.inference_mode()
    def replay(self, row: int, tokens: int, block: bytes) -> None:
        """See Session.replay."""
        self._rows[row].leave()
        play(self._rows[row].states, self._decoder.geometries, tokens, block)
        self._rows[row].length += tokens

    def fork(self, copies: int) -> StoreSession:
        """See Session.fork; row r becomes the rows r * copies ... r * copies + copies - 1."""
        if copies < 1:
            raise ValueError(f"copies is {copies}; it should be at least 1")
        return self._with([row.fork() for row in self._rows for _ in range(copies)])

    def select(self, rows: Sequence[int]) -> StoreSession:
        """See Session.select."""
        if len(set(rows)) != len(rows) or not all(0 <= row < len(self._rows) for row in rows):
            raise ValueError(
                f"rows is {list(rows)}; it should name rows of 0..{len(self._rows) - 1} once each"
            )
        return self._with([self._rows[row] for row in rows])

    def _with(self, rows: Sequence[Row]) -> StoreSession:
        session = StoreSession(self._decoder, self._method, rows, self._limit)
        session.observer = self.observer
        session._by_states = self._by_states
        return session

    @property
    def states(self) -> Sequence[Sequence[LayerState]]:
        """See Session.states."""
        for step in {row.static for row in self._rows if row.static is not None}:
            step.settle()
        return [
            cast("list[LayerState]", [row.states[layer] for row in self._rows])
            for layer, window in enumerate(self._decoder.windows)
            if window is None
        ]

    @property
    def lengths(self) -> Sequence[int]:
        """See Session.lengths."""
        return [row.length for row in self._rows]

    @property
    def _most(self) -> int | None:
        """Tokens that a row may come to hold as it goes on."""
        return self._decoder.max_positions if self._limit is None else self._limit

    def _bind(self) -> None:
        self._cache.bind([row.states for row in self._rows], [row.tape for row in self._rows])

    def _logits(self) -> Tensor:
        return torch.stack([row.logits_V for row in self._rows if row.logits_V is not None])
