"""Prompts that a model has read in full, for sessions of other methods: reading is exact whatever
the method, and at long contexts it is most of the time of a run.
"""

from __future__ import annotations

from array import array
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from longspan.models.decoder import whole
from longspan.models.window import WindowState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import Tensor

    from longspan.models.decoder import Row

Key = tuple[Any, bytes]
"""What a prompt is known by: its tokens, and what else its keys and values depend on."""


class Prompt:
    """One of them, as it is being read, and then for good."""

    def __init__(self, tokens: int, layer: Callable[[int], Any]) -> None:
        """`layer` makes what keeps a layer of so many tokens (methods.prompt.LayerPrompt)."""
        self.tokens, self._new = tokens, layer
        self._layers: dict[int, Any] = {}
        self._windows: dict[int, WindowState] = {}
        self._logits_V: Tensor | None = None

    def add(self, layer: int, q_HQD: Tensor, k_GQD: Tensor, v_GQD: Tensor) -> None:
        """Take the next chunk of a layer that a method owns."""
        if layer not in self._layers:
            self._layers[layer] = self._new(self.tokens)
        self._layers[layer].add(q_HQD, k_GQD, v_GQD)

    @property
    def nbytes(self) -> int:
        """Held by layers of methods."""
        return sum(layer.nbytes for layer in self._layers.values())

    def end(self, row: Row) -> None:
        """The row has read all of it."""
        windows = ((n, each) for n, each in enumerate(row.states) if isinstance(each, WindowState))
        self._windows = {number: state.fork() for number, state in windows}
        assert row.logits_V is not None
        self._logits_V = row.logits_V.clone()

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
            states[number] = window.fork()
        row.length, row.logits_V = self.tokens, self._logits_V
        return True


class Prompts:
    """Those of one model; the first that fit are kept until `clear`, as every job of a sweep asks
    for all of them in the same order.
    """

    def __init__(
        self, most_bytes: int, layer: Callable[[int], Any], most: int | None = None
    ) -> None:
        """`most`: no more than the first so many, if so many are asked for again."""
        self.most_bytes, self.most, self._layer = most_bytes, most, layer
        self._kept: dict[Key, Prompt] = {}
        self.nbytes = 0
        self.given = self.left_out = 0
        """Prompts that were not read again, and those for which there was no room."""

    @property
    def counts(self) -> tuple[int, int]:
        """Prompts that were given, and left out, so far."""
        return self.given, self.left_out

    @contextmanager
    def known(
        self, rows: Sequence[Row], prompts: Sequence[Sequence[int]], also: Any, token_bytes: int
    ) -> Iterator[list[Sequence[int]]]:
        """Empty rows whose prompt is known stand behind it; what is left to read, by row. What is
        read within, from a row's beginning, is kept, if it comes to its end and there is room.
        `also`: what keys and values depend on beside the tokens.
        """
        left: list[Sequence[int]] = []
        begun: dict[Key, tuple[Row, Prompt]] = {}
        coming = 0
        for row, ids in zip(rows, prompts, strict=True):
            key = also, array("q", ids).tobytes()
            known = self._kept.get(key) if ids and not row.length else None
            with whole([row]):
                given = known is not None and known.give(row)
            self.given += given
            left.append([] if given else ids)
            new = ids and not row.length and known is None and key not in begun
            if new and self._has_room(len(begun), coming + len(ids) * token_bytes):
                coming += len(ids) * token_bytes
                row.prompt = Prompt(len(ids), self._layer)
                begun[key] = row, row.prompt
        try:
            yield left
            for key, (row, prompt) in begun.items():
                prompt.end(row)
                self._kept[key] = prompt
                self.nbytes += prompt.nbytes
        finally:
            for row, _ in begun.values():
                row.prompt = None

    def _has_room(self, others: int, wanted: int) -> bool:
        if self.most is not None and len(self._kept) + others >= self.most:
            return False
        fits = self.nbytes + wanted <= self.most_bytes
        self.left_out += not fits
        return fits

    def clear(self) -> None:
        """Give the memory back."""
        self._kept.clear()
        self.nbytes = 0
