"""Prompts that a model has read in full, for sessions of other methods: reading is exact whatever
the method, and at long contexts it is most of the time of a run.
"""

from __future__ import annotations

from array import array
from contextlib import contextmanager
from copy import copy
from typing import TYPE_CHECKING, Any

from longspan.models.decoder import whole
from longspan.models.free import HOST
from longspan.models.window import WindowState, slots

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import torch
    from torch import Tensor

    from longspan.models.decoder import Decoder, Row

Key = tuple[Any, bytes]
"""What a prompt is known by: its tokens, and what else its keys and values depend on."""


class Prompt:
    """One of them, as it is being read, and then for good."""

    def __init__(self, tokens: int, layer: Any) -> None:
        """`layer` makes what keeps a layer of so many tokens (methods.prompt.LayerPrompt)."""
        self.tokens, self._new = tokens, layer
        self._layers: dict[int, Any] = {}
        self._windows: dict[int, WindowState] = {}
        self._logits_V: Tensor
        self._device: torch.device

    def add(self, layer: int, q_HQD: Tensor, k_GQD: Tensor, v_GQD: Tensor) -> None:
        """Take the next chunk of a layer that a method owns."""
        if layer not in self._layers:
            self._layers[layer] = self._new(self.tokens)
        self._layers[layer].add(q_HQD, k_GQD, v_GQD)

    @property
    def nbytes(self) -> int:
        """Held by all layers, those of sliding windows included."""
        return sum(each.nbytes for each in (*self._layers.values(), *self._windows.values()))

    def end(self, row: Row) -> None:
        """The row has read all of it."""
        windows = ((n, each) for n, each in enumerate(row.states) if isinstance(each, WindowState))
        self._windows = {number: state.fork(HOST) for number, state in windows}
        assert row.logits_V is not None
        self._logits_V, self._device = row.logits_V.to(HOST, copy=True), row.logits_V.device

    def give(self, row: Row) -> bool:
        """Have an empty row stand where it would after reading; False, with nothing done, where a
        state needs more than is kept.
        """
        states: list[Any] = row.states
        owned = [number for number in range(len(states)) if number not in self._windows]
        if not all(states[number].takes_over(self._layers[number]) for number in owned):
            return False
        for number in owned:
            states[number].take_over(self._layers[number])
        for number, window in self._windows.items():
            states[number] = window.fork(states[number].geometry.device)
        row.length, row.logits_V = self.tokens, self._logits_V.to(self._device)
        return True


class Prompts:
    """Those of one model; the first that fit are kept until `clear`, as every job of a sweep asks
    for all of them in the same order.
    """

    def __init__(self, most_bytes: float, layer: Any, most: int | None = None) -> None:
        """`most`: no more than the first so many, if so many are asked for again."""
        self.most_bytes, self.most, self._layer = most_bytes, most, layer
        self._kept: dict[Key, Prompt] = {}
        self._aside = False
        self.given = self.left_out = 0
        """Prompts that were not read again, and those for which there was no room."""

    @property
    def counts(self) -> tuple[int, int]:
        """Prompts that were given, and left out, so far."""
        return self.given, self.left_out

    @property
    def nbytes(self) -> int:
        """Of all that is kept."""
        return sum(prompt.nbytes for prompt in self._kept.values())

    def aside(self) -> Prompts:
        """The same, for sessions that read for themselves: what is kept is cleared where they need
        the room, and nothing else.
        """
        twin = copy(self)
        twin._aside = True
        return twin

    @contextmanager
    def known(
        self, rows: Sequence[Row], prompts: Sequence[Sequence[int]], also: Any, decoder: Decoder
    ) -> Iterator[list[Sequence[int]]]:
        """Empty rows whose prompt is known stand behind it; what is left to read, by row. What is
        read within, from a row's beginning, is kept, if it comes to its end and there is room for
        all of it: rows that were read beside others are rounded as if read so again.
        `also`: what keys and values depend on beside the tokens.
        """
        if self._aside:
            yield list(prompts)
            return
        left: list[Sequence[int]] = []
        begun: dict[Key, tuple[Row, Prompt]] = {}
        for row, ids in zip(rows, prompts, strict=True):
            key = also, array("q", ids).tobytes()
            known = self._kept.get(key) if ids and not row.length else None
            with whole([row]):
                given = known is not None and known.give(row)
            self.given += given
            left.append([] if given else ids)
            more = self.most is None or len(self._kept) + len(begun) < self.most
            if more and ids and not row.length and known is None:
                begun.setdefault(key, (row, Prompt(len(ids), self._layer)))
        coming = sum(self._expected_bytes(decoder, each.tokens) for _, each in begun.values())
        if begun and self.nbytes + coming > self.most_bytes:
            self.left_out += len(begun)
            begun.clear()
        for row, prompt in begun.values():
            row.prompt = prompt
        try:
            yield left
            for key, (row, prompt) in begun.items():
                prompt.end(row)
                self._kept[key] = prompt
        finally:
            for row, _ in begun.values():
                row.prompt = None

    def _expected_bytes(self, decoder: Decoder, tokens: int) -> int:
        """The most that a prompt of so many tokens takes."""
        total = 0
        for geometry, window in zip(decoder.geometries, decoder.windows, strict=True):
            if window is None:
                total += self._layer.expected_bytes(geometry, tokens)
            else:
                total += slots(tokens, window) * geometry.kv_heads * geometry.entry_bytes
        return total

    def clear(self) -> None:
        """Give the memory back."""
        self._kept.clear()
