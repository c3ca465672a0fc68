"""A session on a Hugging Face decoder: chunked prefill, decoding, forks and views."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch

from longspan.models.base import Session
from longspan.models.decoder import whole
from longspan.models.forward import Forward
from longspan.models.graphs import opened
from longspan.models.room import check_lengths, check_room
from longspan.models.tape import Tape, play

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import Tensor

    from longspan.methods.base import LayerState, Method
    from longspan.models.base import Observer
    from longspan.models.decoder import Decoder, Row
    from longspan.models.prompts import Prompts
    from longspan.models.static import StaticStep

PIECE = 64
"""Tokens whose logits `logits_after` holds at once."""


class StoreSession(Session):
    """Rows of any length side by side: padding is cut off before anything is stored."""

    def __init__(
        self,
        decoder: Decoder,
        method: Method,
        rows: Sequence[Row],
        max_tokens: int | None,
        context_tokens: int | None = None,
        prompts: Prompts | None = None,
    ) -> None:
        self.observer: Observer | None = None
        self._decoder = decoder
        self._method = method
        self._rows = list(rows)
        self._limit = max_tokens
        self._prompts = prompts
        self._context_tokens = decoder.max_positions if context_tokens is None else context_tokens
        self._forward = Forward(decoder, method, self._context_tokens)
        self._by_states = decoder.graphs == "off"  # whatever else there is
        self._forward.bind(self._rows)

    @torch.inference_mode()
    def prefill(
        self, rows: Sequence[Sequence[int]], progress: Callable[[int], None] | None = None
    ) -> Tensor:
        """See Session.prefill. A chunk runs only the rows that have tokens in it. Each row's chunks
        begin where the row does: a sparse prefill chooses by the chunk, whoever is read beside it.
        """
        decoder = self._decoder
        check_lengths(self._rows, rows, self._limit, decoder.max_positions)
        self._check_room(rows)
        for row in self._rows:
            row.leave()
        if self._prompts is None:
            self._read(rows, progress)
        else:
            also = self._context_tokens
            with self._prompts.known(self._rows, rows, also, decoder) as left:
                self._read(left, progress)
        read = [row for row, ids in zip(self._rows, rows, strict=True) if ids]
        with whole(read):
            for row in read:
                for state in row.states:
                    state.seal()
                row.prefetched = False
        self._forward.bind(self._rows)
        return self._logits()

    def _check_room(self, rows: Sequence[Sequence[int]]) -> None:
        """What is kept for others makes room."""
        decoder = self._decoder
        insisted, new = decoder.graphs in ("on", "eager"), [len(ids) for ids in rows]
        facts = self._method, decoder.geometries, decoder.windows, new, insisted
        try:
            check_room(*facts)
        except ValueError:
            if not self._make_room():
                raise
            check_room(*facts)

    def _make_room(self) -> bool:
        """Whether something was kept for other sessions, which it is no longer."""
        if self._prompts is None or not self._prompts.nbytes:
            return False
        self._prompts.clear()
        return True

    def _read(self, rows: Sequence[Sequence[int]], progress: Callable[[int], None] | None) -> None:
        decoder = self._decoder
        longest = max(len(ids) for ids in rows)
        for first in range(0, longest, decoder.chunk_tokens):
            stop = min(first + decoder.chunk_tokens, longest)
            part = [
                (row, ids[first:stop], len(ids) <= stop)
                for row, ids in zip(self._rows, rows, strict=True)
                if len(ids) > first
            ]
            reading, chunk, ends = zip(*part, strict=True)
            logits_BKV = self._forward.chunk(reading, chunk, ends=ends)
            for row, logits_V in zip(reading, logits_BKV[:, -1], strict=True):
                row.logits_V = logits_V
            if progress is not None:
                progress(stop)

    def logits_after(self, row: int, tokens: Sequence[int]) -> Iterator[Tensor]:
        """See Session.logits_after. Reads in pieces, each when its first logits are asked for."""
        twin = self._with([self._rows[row].fork()])
        check_lengths(twin._rows, [tokens], self._limit, self._positions)
        for state in twin._rows[0].states:
            state.read_in_full()
        return twin._read_on(tokens)

    @torch.inference_mode()
    def _read_on(self, tokens: Sequence[int]) -> Iterator[Tensor]:
        for first in range(0, len(tokens), PIECE):
            piece = tokens[first : first + PIECE]
            yield from self._forward.chunk(self._rows, [piece], keep=len(piece))[0]

    @torch.inference_mode()
    def decode(self, tokens: Sequence[int]) -> Tensor:
        """See Session.decode."""
        check_lengths(self._rows, [[token] for token in tokens], self._limit, self._positions)
        self._decoder.rotary.set(self._context_tokens)
        if (step := self._static()) is not None:
            logits_BV = step.decode(self._rows, tokens)
        else:
            with whole(self._rows):
                for row in self._rows:
                    row.prefetch()
            logits_BV = self._forward.step(self._rows, tokens, self.observer)
        for row, logits_V in zip(self._rows, logits_BV, strict=True):
            row.length += 1
            row.logits_V = logits_V
        return logits_BV

    def _static(self) -> StaticStep | None:
        """What decodes these rows on fixed buffers; None where their states do."""
        step = self._rows[0].static
        if step is not None and self.observer is None and step.holds(self._rows):
            return step
        step = None  # its buffers go before others are made
        for row in self._rows:
            row.leave()
        if self._by_states or self.observer is not None:
            return None
        step = opened(self._decoder, self._method, self._rows, self._limit, self._make_room)
        self._by_states = step is None
        return step

    def record(self) -> None:
        """See Session.record."""
        for row in self._rows:
            row.tape = Tape(len(row.states))
        self._forward.bind(self._rows)

    def recorded(self, row: int) -> bytes:
        """See Session.recorded."""
        tape = self._rows[row].tape
        return b"" if tape is None else tape.cut()

    @torch.inference_mode()
    def replay(self, row: int, tokens: int, block: bytes) -> None:
        """See Session.replay."""
        self._rows[row].check()
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
        session = StoreSession(
            self._decoder, self._method, rows, self._limit, self._context_tokens, self._prompts
        )
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
    def steps_by(self) -> str:
        """See Session.steps_by; ends with `, compiled` where layers were."""
        step = self._rows[0].static
        return "states" if step is None else step.taken_by

    @property
    def lengths(self) -> Sequence[int]:
        """See Session.lengths."""
        return [row.length for row in self._rows]

    @property
    def _positions(self) -> int | None:
        """Those that bind a row as it goes on: a limit of the session's own may be beyond them."""
        binding = self._limit is None or self._decoder.learned_positions
        return self._decoder.max_positions if binding else None

    def _logits(self) -> Tensor:
        return torch.stack([row.logits_V for row in self._rows if row.logits_V is not None])
