"""What must fail in a capture, and not outside: these keep the other cases honest."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import pytest
import torch
from tests.emulated import pinned

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

WAITS = "waits for the device within a capture"


def near(*shape: int) -> Tensor:
    return torch.ones(shape or (4,), device="cuda")


def near_event() -> Any:
    return torch.cuda.current_stream().record_event()


def graph_of(work: Callable[[], Any]) -> tuple[torch.cuda.CUDAGraph, Any]:
    """What torch makes of it, and what it gave in the capture."""
    graph, before = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
    try:
        with torch.cuda.graph(graph, stream=torch.cuda.Stream()):  # type: ignore[no-untyped-call]
            found = work()
    finally:
        torch.cuda.set_stream(before)
    return graph, found


def refused(work: Callable[[], Any], reason: str) -> None:
    """Fails where nothing is wrong, or something else."""
    with pytest.raises((RuntimeError, TypeError), match=reason):
        work()


def in_capture(work: Callable[[Tensor], Any], reason: str = WAITS) -> Callable[[], None]:
    """A case: refused in a capture, and fine outside."""

    def case() -> None:
        x = near(4)
        work(x)
        refused(lambda: graph_of(lambda: work(x)), reason)
        graph_of(lambda: x + 1)  # the next one is not the worse for it

    return case


def swallowed(x: Tensor) -> None:
    """As Python does with what a finalizer raises."""
    try:
        x.sum().item()
    except RuntimeError:
        return


def finalizer(x: Tensor) -> None:
    held = pinned.Runtime()
    weakref.finalize(held, torch.cuda.synchronize)
    del held


IN_CAPTURE = {
    "item": in_capture(lambda x: x.sum().item()),
    "tolist": in_capture(lambda x: x.tolist()),
    "bool": in_capture(lambda x: bool(x.sum())),
    "cpu": in_capture(lambda x: x.cpu()),
    "equal": in_capture(lambda x: torch.equal(x, x)),
    "nonzero": in_capture(lambda x: x.nonzero()),
    "mask": in_capture(lambda x: x[x > 0]),
    "assignment by a mask": in_capture(lambda x: x.__setitem__(x > 0, x.clone())),
    "unique": in_capture(lambda x: torch.unique(x)),
    "repeats of a tensor": in_capture(lambda x: x.repeat_interleave(x.long())),
    "an index of the host": in_capture(lambda x: x[torch.tensor([0, 1])]),
    "numbers of the host": in_capture(lambda x: torch.tensor([1.0, 2.0], device="cuda")),
    "synchronize": in_capture(lambda x: torch.cuda.synchronize()),
    "Stream.synchronize": in_capture(lambda x: torch.cuda.current_stream().synchronize()),
    "Event.synchronize": in_capture(
        lambda x: torch.cuda.current_stream().record_event().synchronize()
    ),
    "a copy to pinned memory that blocks": in_capture(
        lambda x: torch.ones(4).pin_memory().copy_(x)
    ),
    "an error that is swallowed": in_capture(swallowed),
    "a finalizer that waits": in_capture(finalizer),
    "pageable memory, upwards": in_capture(
        lambda x: x.copy_(torch.ones(4), non_blocking=True), "pageable host memory"
    ),
    "pageable memory, downwards": in_capture(
        lambda x: torch.ones(4).copy_(x, non_blocking=True), "pageable host memory"
    ),
    "a copy to another device": in_capture(lambda x: x.to("cuda:1"), "a copy between devices"),
    "an operation on another device": in_capture(
        lambda x: torch.ones(4, device="cuda:1") + 1, "another stream than the capture's"
    ),
    "random numbers": in_capture(lambda x: torch.rand_like(x), "not emulated"),
}
