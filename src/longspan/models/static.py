"""The decode step of several rows on buffers of fixed shape, which a CUDA graph can hold."""

from __future__ import annotations

import gc
import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast
from weakref import ref

import torch

from longspan.models.cache import StoreCache
from longspan.models.room import check_pools

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

    from longspan.methods.base import LayerState, Method, StaticLayer
    from longspan.models.decoder import Decoder, Graphs, Row

AHEAD_TOKENS = 8192
"""Room that buffers have beyond what rows hold; when it is used up they are made anew."""
WARM_UP = 2


class StaticStep:
    """Rows that decode together, whose keys and values lie in the layers' buffers until `close`.

    A row that rests is computed with the others: its token goes where its next one will.
    """

    def __init__(
        self, decoder: Decoder, method: Method, rows: Sequence[Row], limit: int | None
    ) -> None:
        """Raises ValueError where the memory does not hold the buffers."""
        ahead = [row.length + AHEAD_TOKENS for row in rows]
        self.limits = ahead if limit is None else [min(each, limit) for each in ahead]
        check_pools(method, decoder.geometries, rows, self.limits)
        self.decoder = decoder
        # rows hold their step, which goes with the last of them
        self._rows = [ref(row) for row in rows]
        self._lengths = [row.length for row in rows]
        self.cache = StoreCache(decoder.windows, method)
        self.cache.decoding = True
        self.layers: list[StaticLayer] = []
        for number, layer in enumerate(self.cache.layers):
            states = cast("list[LayerState]", [row.states[number] for row in rows])
            # one slot more: a full row that rests has to put its token somewhere
            layer.static = method.static_layer(states, [limit + 1 for limit in self.limits])
            self.layers.append(layer.static)
        inputs = torch.zeros(2, len(rows), dtype=torch.int64, device=decoder.device)
        self.inputs_2B, self.cache.at_B = inputs, inputs[1]
        self.graph: Any = None
        self.logits_BV: Tensor | None = None
        for row in rows:
            row.static = self

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
        for layer in self.layers:
            layer.update(lengths)
        self._say([given.get(id(row), 0) for row in self.rows])
        if self.graph is None:
            self.logits_BV = self.step()
        else:
            self.graph.replay()
        assert self.logits_BV is not None
        self._write_tapes(rows)
        place = {id(row): number for number, row in enumerate(self.rows)}
        return self.logits_BV[[place[id(row)] for row in rows]]

    def step(self) -> Tensor:
        """What is captured: logits [B, V] float32 of the tokens in `inputs_2B`."""
        out = self.decoder.module(
            input_ids=self.inputs_2B[0][:, None],
            position_ids=self.inputs_2B[1][:, None],
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return cast("Tensor", out.logits)[:, -1].float()

    def capture(self) -> None:
        """Make a graph of the step. Steps before it compile kernels; they store the same token at
        the same place as the replay will.
        """
        self._say([0] * len(self._rows))
        before = torch.cuda.current_stream()
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(before)
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                self.step()
            with no_waits():
                self.step()
        before.wait_stream(side)
        gc.collect()  # what it finds may wait for the device, which a capture does not survive
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                self.logits_BV = self.step()
        finally:
            torch.cuda.set_stream(before)  # where a capture failed, torch leaves its own
        torch.cuda.synchronize()  # what the warm-up says to the host is said
        self.graph = graph

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

    def _say(self, tokens: Sequence[int]) -> None:
        """Bring tokens and lengths to the device."""
        self.inputs_2B.copy_(torch.tensor([tokens, self.lengths]))

    def _write_tapes(self, rows: Sequence[Row]) -> None:
        asked = {id(row) for row in rows}
        for number, row in enumerate(self.rows):
            if row is None or row.tape is None or id(row) not in asked:
                continue
            for layer in self.cache.layers:
                assert layer.new is not None
                row.tape.write(layer.number, layer.new[0][number], layer.new[1][number], None)


@contextmanager
def no_waits() -> Iterator[None]:
    """RuntimeError where the host waits for the device, which no graph can hold."""
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


def obstacle(decoder: Decoder, method: Method) -> str | None:
    """Why this model cannot decode with this method on fixed buffers; None if it can."""
    if decoder.graphs == "on" and decoder.device.type != "cuda":
        return "CUDA graphs need a CUDA device"
    if any(window is not None for window in decoder.windows):
        return "the model has layers of a sliding window, whose states move"
    devices = {geometry.device for geometry in decoder.geometries} | {decoder.device}
    if len(devices) > 1:
        return f"the model lies on {len(devices)} devices; a graph is of one"
    return method.static_obstacle(decoder.device)


def opened(
    decoder: Decoder, method: Method, rows: Sequence[Row], limit: int | None
) -> StaticStep | None:
    """The step that decodes these rows, as `decoder.graphs` wants it; None where it leaves it to
    the states. Raises ValueError where it wants what cannot be.
    """
    graphs, cuda = decoder.graphs, decoder.device.type == "cuda"
    if graphs == "off" or (graphs == "auto" and not cuda):
        return None
    if (reason := obstacle(decoder, method)) is not None:
        if graphs == "auto":
            return None
        raise ValueError(f"model.graphs = {graphs!r}: {reason}; right would be auto or off")
    try:
        step = StaticStep(decoder, method, rows, limit)
    except (ValueError, torch.OutOfMemoryError):
        if graphs == "auto":
            return None  # layers that lie in buffers by now are still the states'
        raise
    return step if graphs == "eager" or captured(step, graphs) else None


def captured(step: StaticStep, graphs: Graphs) -> bool:
    """Make the step a graph; False where that fails and `graphs` is auto."""
    try:
        step.capture()
    except RuntimeError as error:
        step.close()
        if graphs != "auto" and isinstance(error, torch.OutOfMemoryError):
            raise
        reason = str(error).splitlines()[0]
        if graphs != "auto":
            raise ValueError(f"model.graphs = {graphs!r}: no graph of a step: {reason}") from error
        logging.getLogger(__name__).warning("decoding without CUDA graphs: %s", reason)
        return False
    return True
