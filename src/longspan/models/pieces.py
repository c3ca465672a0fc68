"""A decode step as CUDA graphs, with what no graph holds between them."""

from __future__ import annotations

import warnings
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Self

    from torch import Tensor

    Work = Callable[[], object]

aten = torch.ops.aten
EMPTY = "The CUDA Graph is empty"
"""torch warns so of a capture in which nothing was recorded."""


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


class Pieces:
    """A captured step. Within, what torch does is recorded, on one device after the other; the
    graphs of a device share its memory, so that all are replayed in order.
    """

    def __init__(self, streams: Mapping[torch.device, torch.cuda.Stream], between: Between) -> None:
        """`streams`: what to capture on, by device, the one that a step begins on first."""
        self.device = next(iter(streams))
        """What is recorded now."""
        self._graphs: list[torch.cuda.CUDAGraph] = []
        self._works: list[Work] = []
        """Replays of graphs, and what is done between them."""
        self._empty: list[torch.cuda.CUDAGraph] = []
        """Nothing to replay; but a device's memory goes with the last of its graphs."""
        self._streams, self._between = streams, between
        self._pools = {device: torch.cuda.graph_pool_handle() for device in streams}
        self._moves = Moves(self) if len(streams) > 1 else nullcontext()
        # no ExitStack: of an error within, it makes a cycle that holds the step's memory
        self._open: torch.cuda.graph | None = None

    def __len__(self) -> int:
        return len(self._graphs)

    def replay(self) -> None:
        """Take the step again."""
        for work in self._works:
            work()

    def __enter__(self) -> Self:
        self._between.by = self.after
        self._begin()
        self._moves.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._between.by = at_once
        moves, self._moves = self._moves, nullcontext()
        moves.__exit__(*error)
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
        self.device = device
        if prepare is not None:
            self._works.append(prepare())
        self._begin()

    def _begin(self) -> None:
        stream, pool = self._streams[self.device], self._pools[self.device]
        opened = torch.cuda.graph(torch.cuda.CUDAGraph(), pool, stream)
        opened.__enter__()
        self._open = opened

    def _end(self) -> None:
        opened, self._open = self._open, None
        if opened is None:
            return
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            opened.__exit__(None, None, None)
        graph = opened.cuda_graph
        # moves follow on one another; behind the last of them there may be nothing to do
        if any(EMPTY in str(each.message) for each in said):
            self._empty.append(graph)
            return
        self._graphs.append(graph)
        self._works.append(graph.replay)


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
            self._forget(args[0])
            self._pieces.turn(args[0].device, lambda: partial(args[0].copy_, args[1]))
            return args[0]
        device = next(_gpus(args, kwargs), self._pieces.device)
        if device != self._pieces.device:
            self._pieces.turn(device)
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

    def _forget(self, *given: Any) -> None:
        """What is written now, there or here, has to be moved again."""
        written = {each.untyped_storage()._cdata for each in _tensors(given)}
        for key, both in list(self._moved.items()):
            if any(each.untyped_storage()._cdata in written for each in both):
                del self._moved[key]


def _both_gpus(one: torch.device, other: torch.device | None) -> bool:
    """And not the same."""
    return other is not None and one.type == other.type == "cuda" and one != other


def _gpus(args: Any, kwargs: Any) -> Iterator[torch.device]:
    """What an operation runs on, as its arguments have it."""
    named = kwargs.get("device")
    found = [torch.device(named)] if named is not None else []
    for device in (*found, *(each.device for each in _tensors((args, kwargs)))):
        if device.type == "cuda" and device.index is not None:
            yield device


def _tensors(given: Any) -> list[Tensor]:
    return [each for each in tree_iter(given) if isinstance(each, torch.Tensor)]
