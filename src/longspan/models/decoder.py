"""What sessions run on: the parts of a loaded model, and the sequences that it reads."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal, cast

import torch

from longspan.models.window import WindowState

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

    from longspan.methods.base import LayerState, Method
    from longspan.models.cache import RowState
    from longspan.models.compiled import CompiledLayers
    from longspan.models.prompts import Prompt
    from longspan.models.rope import RotaryPin
    from longspan.models.static import StaticStep
    from longspan.models.tape import Tape
    from longspan.prefill.base import Prefill
    from longspan.types import LayerGeometry


Graphs = Literal["auto", "on", "off", "eager"]
"""Whether decode steps are CUDA graphs: `on`; `auto`, where method and model allow it and memory
holds it; `off`; `eager`, the same step on the same buffers, launched operation by operation."""


def fixed_shapes(graphs: Graphs | str, *, cuda: bool) -> bool:
    """Whether decode steps are to be of fixed shape where method and model allow it."""
    return graphs != "off" and (graphs != "auto" or cuda)


@dataclass(frozen=True, kw_only=True)
class Decoder:
    """The parts of a loaded model that sessions run on."""

    module: Any
    windows: Sequence[int | None]
    """By layer; None where the method owns the layer."""
    geometries: Sequence[LayerGeometry]
    """By layer, all of them."""
    attentions: Sequence[Any]
    """The module of each."""
    rotary: RotaryPin
    device: torch.device
    """Where token ids go."""
    chunk_tokens: int
    max_positions: int | None
    learned_positions: bool = False
    """Whether they are a table that ends there; others go on, if not well."""
    overlap_index: bool = False
    graphs: Graphs = "off"
    compiled: CompiledLayers | None = None
    """What takes the place of the layers in steps of fixed shape."""

    def states(self, method: Method, prefill: Prefill | None = None) -> list[RowState]:
        """The empty states of one sequence, by layer; sliding windows are exact in any case."""
        states: list[RowState] = []
        for geometry, window in zip(self.geometries, self.windows, strict=True):
            if window is not None:
                states.append(WindowState(geometry, window))
                continue
            state = method.layer(geometry)
            if prefill is not None:
                state.prefill_by = prefill
            states.append(state)
        join(states)
        return states


def join(states: Sequence[RowState]) -> None:
    """Let the layers of one sequence share what they may."""
    for below, state in pairwise(of_method(states)):
        state.join(below)


def of_method(states: Sequence[RowState]) -> list[LayerState]:
    """Those that a method made."""
    return [cast("LayerState", each) for each in states if not isinstance(each, WindowState)]


@dataclass(slots=True, weakref_slot=True)
class Row:
    """One sequence; sessions that are views of one another hold the same rows."""

    states: list[RowState]
    length: int = 0
    logits_V: Tensor | None = None
    tape: Tape | None = None
    shared: bool = False
    """Whether a fork has, or had, a part in what the states hold."""
    static: StaticStep | None = None
    """What decodes this row now; the states are behind it until it is left."""
    prompt: Prompt | None = None
    """What keeps the prompt that is being read for other sessions."""
    prefetched: bool = False
    """Whether the states have brought near what their first step is likely to read."""
    broken: bool = False
    """Whether reading ended half-way, so that layers hold different tokens."""

    def check(self) -> None:
        """RuntimeError where nothing right can come of it any more."""
        if self.broken:
            raise RuntimeError("a row was left half-read by an error; right is a new session")

    def prefetch(self) -> None:
        """Before the states decode."""
        if self.prefetched:
            return
        for state in of_method(self.states):
            state.prefetch()
        self.prefetched = True

    def leave(self) -> None:
        """Go on with the states."""
        if self.static is not None:
            self.static.close()

    @torch.inference_mode()
    def fork(self) -> Row:
        """A row that goes on from here."""
        self.check()
        if self.static is not None:
            self.static.settle()
        states = [state.fork() for state in self.states]
        join(states)
        self.shared = True
        return replace(self, states=states, tape=None, static=None, prompt=None, prefetched=False)


@contextmanager
def whole(rows: Sequence[Row]) -> Iterator[None]:
    """Rows that are read within are broken where that does not come to its end."""
    try:
        yield
    except BaseException:
        for row in rows:
            row.broken = True
        raise
