"""A decode step as CUDA graphs, with what no graph holds between them."""

from __future__ import annotations

import warnings
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Self

    from torch import Tensor

    Work = Callable[[], object]

aten = torch.ops.aten


class Between:
    """Where a step leaves its graph to do something else. It is done at once where the step is
    taken operation by operation, left out while a step warms up, and noted while it is captured.
    """

    def __init__(self) -> None:
        self.by: Callable[[Work], object] = at_once

    def __call__(self, work: Work) -> None:
        """Do it, or see to it that every replay does; what it reads and writes lies where it is."""
        self.by(work)


def at_once(work: Work) -> None:
    """See Between."""
    work()


def never(work: Work) -> None:
    """See Between."""


class Piece:
    """A graph, and what is done before it."""

    def __init__(self, first: Sequence[Work]) -> None:
        self.first, self.graph = first, torch.cuda.CUDAGraph()


class Pieces:
    """A captured step. Within, what torch does is recorded, on one device after the other; the
    graphs of a device share its memory, so that all are replayed in order.
    """

    def __init__(self, streams: Mapping[torch.device, torch.cuda.Stream], between: Between) -> None:
        """`streams`: what to capture on, by device, the one that a step begins on first."""
        self.device = next(iter(streams))
        """What is recorded now."""
        self.empty = False
        """Whether nothing is recorded yet, as far as that is known."""
        self._pieces: list[Piece] = []
        self._streams, self._between = streams, between
        self._pools = {device: torch.cuda.graph_pool_handle() for device in streams}
        self._open, self._moves = ExitStack(), ExitStack()

    def __len__(self) -> int:
        return len(self._pieces)

    def replay(self) -> None:
        """Take the step again."""
        for piece in self._pieces:
            for work in piece.first:
                work()
            piece.graph.replay()

    def __enter__(self) -> Self:
        self._between.by = self.after
        self._begin([])
        if len(self._streams) > 1:
            self._moves.enter_context(Moves(self))
        return self

    def __exit__(self, *error: Any) -> None:
        self._between.by = at_once
        self._moves.close()
        try:
            self._end()
        except Exception:
            if error[0] is None:  # else it only says that there was another
                raise

    def after(self, work: Work) -> None:
        """End a graph, have the work done, and begin the next one."""
        self.turn(self.device, lambda: work)

    def turn(self, device: torch.device, prepare: Callable[[], Work] | None = None) -> None:
        """End a graph and begin one on a device. What comes between is prepared where nothing is
        recorded, so that its memory is of no graph.
        """
        self._end()
        first = self._pieces.pop().first if self.empty else ()
        self.device = device
        self._begin(first if prepare is None else (*first, prepare()))

    def _begin(self, first: Sequence[Work]) -> None:
        piece, device = Piece(first), self.device
        self.empty = len(self._streams) > 1  # by nobody is it known else
        stream, pool = self._streams[device], self._pools[device]
        self._open.enter_context(torch.cuda.graph(piece.graph, pool, stream))
        self._pieces.append(piece)

    def _end(self) -> None:
        with warnings.catch_warnings():
            # behind the last move there may be nothing to do
            warnings.filterwarnings("ignore", "The CUDA Graph is empty")
            self._open.close()


class Moves(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Ends a graph where a model goes on on another device. What is moved there has memory of its
    own, and comes once a step, however often it is asked for.
    """

    def __init__(self, pieces: Pieces) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._pieces = pieces
        self._moved: dict[tuple[int, torch.device, torch.dtype], tuple[Tensor, Tensor]] = {}
        """By source, which it keeps, so that no other gets its number."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func.overloadpacket is aten.to:  # which inference mode does not take apart
            with self:
                return func.decompose(*args, **kwargs)
        if func is aten._to_copy.default and _both_gpus(args[0].device, kwargs.get("device")):
            return self._once(args[0], kwargs["device"], kwargs.get("dtype") or args[0].dtype)
        if func is aten.copy_.default and _both_gpus(args[0].device, args[1].device):
            self._pieces.turn(args[0].device, lambda: partial(args[0].copy_, args[1]))
            return args[0]
        device = next(_gpus(args, kwargs), None)
        if device is not None:
            if device != self._pieces.device:
                self._pieces.turn(device)
            self._pieces.empty = False
        if func._schema.is_mutable:
            self._forget(args, kwargs)
        return func(*args, **kwargs)

    def _once(self, source: Tensor, device: torch.device, dtype: torch.dtype) -> Tensor:
        """A copy on the device."""
        key = id(source), device, dtype
        if key not in self._moved:
            self._pieces.turn(device, partial(self._new, key, source))
        return self._moved[key][1]

    def _new(self, key: tuple[int, torch.device, torch.dtype], source: Tensor) -> Work:
        _, device, dtype = key
        target = torch.empty_like(source, device=device, dtype=dtype)
        self._moved[key] = source, target
        return partial(target.copy_, source)

    def _forget(self, args: Any, kwargs: Any) -> None:
        """What is written now has to be moved again."""
        written = {each.untyped_storage()._cdata for each in _tensors(args, kwargs)}
        for key, (source, _) in list(self._moved.items()):
            if source.untyped_storage()._cdata in written:
                del self._moved[key]


def _both_gpus(one: torch.device, other: torch.device | None) -> bool:
    """And not the same."""
    return other is not None and one.type == other.type == "cuda" and one != other


def _gpus(args: Any, kwargs: Any) -> Iterator[torch.device]:
    """What an operation runs on, as its arguments have it."""
    named = kwargs.get("device")
    found = [torch.device(named)] if named is not None else []
    for device in (*found, *(each.device for each in _tensors(args, kwargs))):
        if device.type == "cuda" and device.index is not None:
            yield device


def _tensors(args: Any, kwargs: Any) -> list[Tensor]:
    return [each for each in tree_iter((args, kwargs)) if isinstance(each, torch.Tensor)]
