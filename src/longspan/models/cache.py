"""The cache that a Hugging Face model writes to: it keeps nothing but hands K and V to states."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn, Protocol
from weakref import proxy

import torch

from longspan_kernels.types import Partial

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor, nn

    from longspan.methods.base import Method, StaticLayer
    from longspan.models.base import Observer
    from longspan.models.prompts import Prompt
    from longspan.models.sealing import Sealer
    from longspan.models.tape import Tape
    from longspan.types import LayerGeometry


class RowState(Protocol):
    """What a layer of a row can do, whether a method or the model's own window owns it."""

    def prefill(self, q_HQD: Tensor, k_GQD: Tensor, v_GQD: Tensor) -> Partial:
        """Store a chunk and attend it."""

    def read_in_full(self) -> None:
        """Attend exactly what is stored from here on."""

    def seal(self) -> None:
        """The prompt is complete."""

    def append(self, k_GD: Tensor, v_GD: Tensor) -> None:
        """Store one token."""

    def decode(self, q_HD: Tensor) -> Partial:
        """Attend one query."""

    @property
    def remembers(self) -> bool:
        """Whether `remember` has to be called where a token is stored without being decoded."""

    def remember(self, q_HD: Tensor) -> None:
        """Learn of the query of a token that was stored without being decoded."""

    def fork(self) -> RowState:
        """Go on from here twice."""


class Handle:
    """What `update` returns in place of both K and V; only the longspan attention can read it."""

    __slots__ = ("k_BGQD", "layer", "v_BGQD")

    def __init__(self, layer: CacheLayer, k_BGQD: Tensor, v_BGQD: Tensor) -> None:
        self.layer = layer
        self.k_BGQD = k_BGQD
        self.v_BGQD = v_BGQD

    def __getattr__(self, name: str) -> NoReturn:
        raise TypeError(f"keys and values are used (.{name}) between the cache and the attention")


class CacheLayer:
    """One layer of the rows that are read now."""

    def __init__(
        self, cache: StoreCache, number: int, method: Method | None, window: int | None
    ) -> None:
        # not a reference: keys and values go when a session does, not when cycles are looked for
        self.cache: StoreCache = proxy(cache)
        self.number = number
        self.method = method
        """None where the model's own window owns the layer."""
        self.window = window
        self.states: Sequence[RowState] = ()
        self.static: StaticLayer | None = None
        """What decodes in place of the states, if anything does."""
        self.new: tuple[Tensor, Tensor, Tensor] | None = None
        """Keys, values and queries of the last step, where `static` decodes."""

    def prefill(self, q_BHQD: Tensor, handle: Handle, sink_H: Tensor | None) -> Tensor:
        """Attend a left-padded chunk row by row; out [B, Q, H, D], 0 where the padding is."""
        batch, heads, queries, size = q_BHQD.shape
        out_BQHD = q_BHQD.new_empty(batch, queries, heads, size)
        for row, (state, count) in enumerate(zip(self.states, self.cache.counts, strict=True)):
            pad = queries - count
            given = [x[row, :, pad:] for x in (q_BHQD, handle.k_BGQD, handle.v_BGQD)]
            out_HQD, lse_HQ = state.prefill(*given)
            if self.window is None and (prompt := self.cache.prompts[row]) is not None:
                prompt.add(self.number, *given)
            if sink_H is not None:
                out_HQD = drain(out_HQD, lse_HQ, sink_H[:, None])
            out_BQHD[row, :pad] = 0
            out_BQHD[row, pad:] = out_HQD.transpose(0, 1)
            if self.cache.sealer is not None and self.cache.ends[row]:
                self.cache.sealer.seal(state)
        return out_BQHD

    def decode(self, q_BHD: Tensor, handle: Handle, sink_H: Tensor | None) -> Tensor:
        """Append one token a row, then attend by the method; out [B, H, D]."""
        k_BGD, v_BGD = handle.k_BGQD[:, :, 0], handle.v_BGQD[:, :, 0]
        if self.static is not None:
            assert self.cache.at_B is not None
            self.new = k_BGD, v_BGD, q_BHD
            at_B = self.cache.at_B.to(q_BHD.device)
            return self._out(self.static.step(q_BHD, k_BGD, v_BGD, at_B), q_BHD, sink_H)
        for row, state in enumerate(self.states):
            state.append(k_BGD[row], v_BGD[row])
        for row, tape in enumerate(self.cache.tapes):
            if tape is not None:
                q_HD = q_BHD[row] if self.states[row].remembers else None
                tape.write(self.number, k_BGD[row], v_BGD[row], q_HD)
        if self.method is not None:
            # the states of a layer with a method come from that method
            partial = self.method.decode(self.states, q_BHD)  # type: ignore[arg-type]
            if self.cache.observer is not None:
                self._observe(self.cache.observer, q_BHD, partial)
        else:
            parts = [state.decode(q_BHD[row]) for row, state in enumerate(self.states)]
            partial = Partial(
                torch.stack([p.out for p in parts]), torch.stack([p.lse for p in parts])
            )
        return self._out(partial, q_BHD, sink_H)

    def _out(self, partial: Partial, q_BHD: Tensor, sink_H: Tensor | None) -> Tensor:
        out_BHD = partial.out if sink_H is None else drain(partial.out, partial.lse, sink_H)
        return out_BHD.to(q_BHD)

    def _observe(self, observer: Observer, q_BHD: Tensor, partial: Partial) -> None:
        for row, state in enumerate(self.states):
            one = Partial(partial.out[row], partial.lse[row])
            observer(self.number, row, state, q_BHD[row], one)  # type: ignore[arg-type]


def drain(out: Tensor, lse: Tensor, sink: Tensor) -> Tensor:
    """Add a sink to the softmax: a logit a head that takes weight and returns nothing (gpt-oss)."""
    return out * torch.sigmoid(lse - sink.to(lse))[..., None]


class StoreCache:
    """The cache argument of a Hugging Face decoder, by its interface, without its storage.

    Padding and masks never reach the model: rows are told apart by `counts`, so the lengths that
    are asked for here only have to be consistent.
    """

    is_compileable = False

    def __init__(self, windows: Sequence[int | None], method: Method | None) -> None:
        self.layers = [
            CacheLayer(self, number, method if window is None else None, window)
            for number, window in enumerate(windows)
        ]
        self.is_sliding = [window is not None for window in windows]
        self.is_linear = [False] * len(self.layers)
        self.is_dummy = [False] * len(self.layers)
        self.decoding = False
        self.guessing = False
        """Whether the attention ends with `Guessed`, before it stores or reads anything."""
        self.counts: Sequence[int] = ()
        """Real tokens of each row in the chunk that is read now; they stand at its end."""
        self.prompts: Sequence[Prompt | None] = ()
        """By row of the chunk that is read now: what keeps its prompt for other sessions."""
        self.tapes: Sequence[Tape | None] = ()
        """By row: what keeps the tokens that are decoded."""
        self.observer: Observer | None = None
        self.sealer: Sealer | None = None
        self.ends: Sequence[bool] = ()
        """What seals the states of rows whose prompt ends with the chunk, and which these are."""
        self.at_B: Tensor | None = None
        """int64: tokens that each row holds, where layers are static."""
        self.probe: list[tuple[LayerGeometry, nn.Module]] | None = None
        """Where the attention notes what it learns of each layer, and whose it is, during the
        self-test at load.
        """

    def bind(self, rows: Sequence[Sequence[RowState]], tapes: Sequence[Tape | None] = ()) -> None:
        """Read and write these rows, each given as its states by layer."""
        self.tapes = tapes
        for number, layer in enumerate(self.layers):
            layer.states = [states[number] for states in rows]

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_: object, **__: object
    ) -> tuple[Handle, Handle]:
        """Carry K and V of the new tokens to the attention function."""
        handle = Handle(self.layers[layer_idx], key_states, value_states)
        return handle, handle

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Positions are always given, so nothing depends on it."""
        return 0

    def get_query_offset(self, layer_idx: int = 0) -> int:
        """As `get_seq_length`."""
        return 0

    def get_mask_sizes(self, query_length: int, layer_idx: int = 0) -> tuple[int, int]:
        """The mask that would be built covers the new tokens only; `longspan_mask` builds none."""
        return query_length, 0

    def __len__(self) -> int:
        return len(self.layers)
