"""CUDA graphs: what a capture records, and what a replay does again on the same memory.

A capture runs torch's operations, for the sake of shapes, but no kernel, and takes back what it
wrote to memory that was there before; what it allocated is full of NaN afterwards, and so is, in a
replay, what it had let go of, or another graph of its pool. Not emulated: random numbers, several
streams in one capture, graphs of a pool that are replayed in another order.
"""

from __future__ import annotations

import threading
import warnings
import weakref
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

import torch
from tests.emulated import pinned
from tests.emulated.rules import EMPTY, HERE, Illegal, facts, gpus
from tests.emulated.tensors import CudaTensor, Memory, kept, poison, tensors

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.emulated.streams import Stream
    from torch import Tensor


class Pool:
    """Memory that graphs share."""

    def __init__(self) -> None:
        self.freed: list[Tensor] = []
        """Since the last of their captures."""


class Capture:
    """What one thread does between `capture_begin` and `capture_end`."""

    def __init__(self, stream: Stream, pool: Pool) -> None:
        self.stream, self.thread, self.pool = stream, threading.get_ident(), pool
        self.steps: list[partial[object]] = [partial(poison, each) for each in pool.freed]
        pool.freed = []
        self.needs: dict[int, tuple[weakref.ref[Any], str]] = {}
        """Memory from before the capture, by address, and what first read or wrote it."""
        self.saved: dict[int, tuple[Tensor, Tensor]] = {}
        self.made: list[Tensor] = []
        self.broken: str | None = None

    def spoil(self, why: str) -> NoReturn:
        """The capture ends with an error, whoever swallows this one."""
        self.broken = self.broken or why
        raise Illegal(why)

    def allocated(self, memory: Memory, inner: Tensor) -> None:
        """Note a storage; poison it where it is let go of before the last capture of the pool."""
        self.made.append(inner)
        weakref.finalize(memory, self._freed, inner).atexit = False

    def _freed(self, inner: Tensor) -> None:
        if HERE.capture is not None and HERE.capture.pool is self.pool:
            HERE.capture.steps.append(partial(poison, inner))
        else:
            self.pool.freed.append(inner)

    def before(self, func: Any, args: Any, kwargs: Any) -> None:
        """Of an operation with its tensors as the caller gave them."""
        known = facts(func)
        written = [args[number] for number in known.written if number < len(args)]
        if known.writes_out:
            written += [each for name, each in kwargs.items() if name.startswith("out")]
        self.uses(known.name, tensors((args, kwargs)), tensors(written))

    def uses(self, what: str, read: list[Tensor], written: list[Tensor]) -> None:
        """Note memory from before the capture, and what is in it where it is written."""
        from tests.emulated.streams import current_stream

        there = next(gpus(read, {}), None)  # what lies on the host is copied where it is told
        if there is not None and current_stream(there) is not self.stream:
            self.spoil(f"{what} on another stream than the capture's, which is not emulated")
        for each in read:
            if isinstance(each, CudaTensor):
                made = each.memory.capture
                if made is None or made.pool is not self.pool:
                    self._needs(each.numbers, each.memory, what)
            elif each.dim():
                lock = pinned.lock_of(each)
                if lock is None:
                    self.spoil(f"{what} reads pageable host memory within a capture")
                self._needs(each, lock, what)
        for each in written:
            if isinstance(each, CudaTensor) and each.memory.capture is not self:
                whole = torch.empty(0, dtype=torch.uint8).set_(each.numbers.untyped_storage())
                self.saved.setdefault(whole.data_ptr(), (whole, whole.clone()))

    def _needs(self, inner: Tensor, holder: object, what: str) -> None:
        text = f"{what} of {list(inner.shape)} {inner.dtype}"
        self.needs.setdefault(inner.untyped_storage().data_ptr(), (weakref.ref(holder), text))

    def after(self, func: Any, args: Any, kwargs: Any, found: Any) -> None:
        """Record the operation, with inner tensors, unless it only looks at memory otherwise."""
        known, results = facts(func), tensors(found)
        if known.name in EMPTY:
            self.steps.append(partial(poison, results[0]))
            return
        changes = known.written or known.writes_out
        seen = {each.untyped_storage().data_ptr() for each in tensors((args, kwargs))}
        if not changes and all(x.untyped_storage().data_ptr() in seen for x in results):
            return
        self.steps.append(partial(_again, func, args, kwargs, () if changes else results))

    def brings(self, target: Tensor, source: Tensor) -> None:
        """Record a copy to the host, which does not happen yet."""
        assert isinstance(source, CudaTensor)
        self.uses("copy_", [target, source], [])
        self.steps.append(partial(kept(target).copy_, source.numbers))

    @torch.inference_mode()
    def end(self) -> None:
        """Take back what was written, and let nobody read what was made before it is replayed."""
        for whole, before in self.saved.values():
            whole.copy_(before)
        for each in self.made:
            poison(each)


def _again(func: Any, args: Any, kwargs: Any, results: Sequence[Tensor]) -> None:
    for result, found in zip(results, tensors(func(*args, **kwargs)), strict=False):
        result.copy_(found)


class CUDAGraph:
    """See torch.cuda.CUDAGraph."""

    def __init__(self, keep_graph: bool = False) -> None:
        self._capture: Capture | None = None

    def capture_begin(self, pool: Pool | None = None, **_: Any) -> None:
        from tests.emulated.streams import current_stream, default_stream

        if HERE.capture is not None:
            HERE.capture.spoil("a capture within a capture")
        if current_stream() is default_stream():
            raise Illegal("a capture on the default stream; right is a stream of its own")
        HERE.capture = Capture(current_stream(), pool or Pool())

    def capture_end(self) -> None:
        capture, HERE.capture = HERE.capture, None
        assert capture is not None
        capture.end()
        if capture.broken is not None:
            raise Illegal(f"the capture failed: {capture.broken}")
        self._capture = capture
        poisoned = [step.args[0] for step in capture.steps if step.func is poison]
        if len(poisoned) == len(capture.steps):  # which is no work of a GPU
            capture.pool.freed += poisoned
            warnings.warn("The CUDA Graph is empty. This usually means ...", stacklevel=2)

    @torch.inference_mode()
    def replay(self) -> None:
        capture = self._capture
        if capture is None:
            raise Illegal("a replay without a capture before it")
        if HERE.capture is not None:
            HERE.capture.spoil("a replay within a capture, which is not emulated")
        for holder, text in capture.needs.values():
            if holder() is None:
                raise Illegal(f"a replay uses memory that nobody holds any more: {text}")
        for step in capture.steps:
            step()

    def reset(self) -> None:
        self._capture = None
