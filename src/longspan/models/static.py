"""The decode step of several rows on buffers of fixed shape, which a CUDA graph can hold."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, cast
from weakref import ref

import torch

from longspan.models.cache import StoreCache
from longspan.models.decoder import whole
from longspan.models.guesses import Guesses
from longspan.models.pieces import Between
from longspan.models.room import check_pools
from longspan.models.static_states import StaticStates
from longspan.models.window import WindowState
from longspan.models.window_static import StaticWindow

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from longspan.methods.base import Method, StaticLayer
    from longspan.models.decoder import Decoder, Row
    from longspan.models.pieces import Pieces

AHEAD_TOKENS = 8192
"""Room that buffers have beyond what rows hold; when it is used up they are made anew."""


class StaticStep:
    """Rows that decode together until `close`: their keys and values lie in the layers' buffers;
    where the method has none for a layer, its states decode between the pieces of the step.

    A row that rests is computed with the others: its token goes where its next one will.
    """

    def __init__(
        self, decoder: Decoder, method: Method, rows: Sequence[Row], limit: int | None
    ) -> None:
        """Raises ValueError where the memory does not hold the buffers."""
        ahead = [row.length + AHEAD_TOKENS for row in rows]
        self.limits = ahead if limit is None else [min(each, limit) for each in ahead]
        check_pools(method, decoder, rows, self.limits)
        self.decoder, self.between = decoder, Between()
        # rows hold their step, which goes with the last of them
        self._rows = [ref(row) for row in rows]
        self._lengths = [row.length for row in rows]
        cache = StoreCache if decoder.compiled is None else decoder.compiled.cache
        self.cache = cache(decoder.windows, method)
        self.cache.decoding = True
        self.guesses = Guesses(decoder.attentions, self.cache)
        self.layers: list[StaticLayer] = []
        try:
            for layer in self.cache.layers:
                states = [row.states[layer.number] for row in rows]
                layer.static = self._layer(method, layer.number, states)
                self.layers.append(layer.static)
            for static in self.layers:
                static.prefetch()
        except BaseException:
            for static in self.layers:
                static.release()  # what lies in buffers by now is still the states'
            raise
        inputs = torch.zeros(2, len(rows), dtype=torch.int64, device=decoder.device)
        self.inputs_2B, self.cache.at_B = inputs, inputs[1]
        self.pieces: Pieces | None = None
        """What was captured, if anything was."""
        self.logits_BV: Tensor | None = None
        for row in rows:
            row.static = self

    @property
    def buffered(self) -> bool:
        """Whether all layers are in buffers."""
        return not any(isinstance(each, StaticStates) for each in self.layers)

    def _layer(self, method: Method, number: int, states: Sequence[Any]) -> StaticLayer:
        # one slot more: a full row that rests has to put its token somewhere
        limits = [limit + 1 for limit in self.limits]
        if isinstance(states[0], WindowState):
            return StaticWindow(states, self._lengths, limits)
        if method.static_obstacle(self.decoder.geometries[number]) is None:
            return method.static_layer(states, limits)
        return StaticStates(method, states, self.between)

    @property
    def rows(self) -> list[Row | None]:
        """Those that are still held by somebody, each in its place."""
        return [row() for row in self._rows]

    @property
    def lengths(self) -> list[int]:
        """Tokens of each; a row that nobody holds any more rests."""
        for number, row in enumerate(self.rows):
            if row is not None:
                self._lengths[number] = row.length
        return self._lengths

    def decode(self, rows: Sequence[Row], tokens: Sequence[int]) -> Tensor:
        """Give some of the rows one more token; returns their logits [len(rows), V]."""
        given = {id(row): token for row, token in zip(rows, tokens, strict=True)}
        lengths = self.lengths
        decoding = [number for number, row in enumerate(self.rows) if id(row) in given]
        try:
            for layer in self.layers:
                layer.update(lengths, decoding)
            self.say([given.get(id(row), 0) for row in self.rows])
            # buffers can do a step again, states cannot
            with nullcontext() if self.buffered else whole(rows):
                self._take()
        except BaseException:
            for layer in self.layers:
                layer.abandon()
            raise
        assert self.logits_BV is not None
        self._write_tapes(rows)
        place = {id(row): number for number, row in enumerate(self.rows)}
        return self.logits_BV[[place[id(row)] for row in rows]]

    def _take(self) -> None:
        if self.pieces is None:
            self.logits_BV = self.step()
        else:
            self.pieces.replay()

    def say(self, tokens: Sequence[int]) -> None:
        """Bring tokens and lengths to the device."""
        self.inputs_2B.copy_(torch.tensor([tokens, self.lengths]))

    def step(self) -> Tensor:
        """What is captured: logits [B, V] float32 of the tokens in `inputs_2B`."""
        compiled = self.decoder.compiled
        with self.guesses.step(), nullcontext() if compiled is None else compiled.installed():
            out = self.decoder.module(
                input_ids=self.inputs_2B[0][:, None],
                position_ids=self.inputs_2B[1][:, None],
                past_key_values=self.cache,
                use_cache=True,
                logits_to_keep=1,
            )
        return cast("Tensor", out.logits)[:, -1].float()

    @property
    def taken_by(self) -> str:
        """See Session.steps_by."""
        compiled = ", compiled" * (self.decoder.compiled is not None)
        if self.pieces is None:
            by_states = all(isinstance(each, StaticStates | StaticWindow) for each in self.layers)
            return ("states" if by_states else "buffers") + compiled
        return ("graph" if len(self.pieces) == 1 else f"{len(self.pieces)} graphs") + compiled

    def holds(self, rows: Sequence[Row]) -> bool:
        """Whether these rows are here and none of them is full."""
        most = {id(row): limit for row, limit in zip(self.rows, self.limits, strict=True)}
        return all(row.static is self and row.length < most[id(row)] for row in rows)

    def settle(self) -> None:
        """Bring the states of all rows to where they are."""
        lengths = self.lengths
        for layer in self.layers:
            layer.settle(lengths)

    def close(self) -> None:
        """Settle, and let the rows go on with their states."""
        self.settle()
        for layer in self.layers:
            layer.release()
        for row in self.rows:
            if row is not None:
                row.static = None

    def _write_tapes(self, rows: Sequence[Row]) -> None:
        asked = {id(row) for row in rows}
        for number, row in enumerate(self.rows):
            if row is None or row.tape is None or id(row) not in asked:
                continue
            for layer in self.cache.layers:
                assert layer.new is not None
                k_GD, v_GD, q_HD = (each[number] for each in layer.new)
                learns = row.states[layer.number].remembers
                row.tape.write(layer.number, k_GD, v_GD, q_HD if learns else None)
