"""What must fail wherever it is done, and how captures, replays and memory must behave."""

from __future__ import annotations

import gc
from functools import partial
from typing import Any

import torch
import triton
import triton.language as tl
from tests.emulated import pinned
from tests.emulated.in_captures import graph_of, near, refused


@triton.jit  # type: ignore[untyped-decorator]
def add(x: Any, y: Any, out: Any, COUNT: tl.constexpr) -> None:
    at = tl.arange(0, COUNT)
    tl.store(out + at, tl.load(x + at) + tl.load(y + at))


def mixed_devices() -> None:
    x, far = near(4), torch.ones(4)
    reason = "should be on one device"
    for work in (
        lambda: x + far,
        lambda: far * x,
        lambda: torch.cat([x, far]),
        lambda: torch.where(x > 0, x, far),
        lambda: far.add_(x),
        lambda: torch.add(x, x, out=far),
        lambda: torch.tensor(1.0).add_(x.sum()),
    ):
        refused(work, reason)
    refused(lambda: far[x.long()], reason)
    assert (x + torch.tensor(1.0)).tolist() == [2.0] * 4  # as torch has it
    refused(x.numpy, "numpy")


def kernels_and_host_memory() -> None:
    x, out = near(4), near(4)
    refused(lambda: add[(1,)](x, torch.ones(4), out, COUNT=4), "argument 1 of the kernel add")
    add[(1,)](x, torch.ones(4).pin_memory(), out, COUNT=4)
    assert out.tolist() == [2.0] * 4


def captures_in_the_wrong_place() -> None:
    graph = torch.cuda.CUDAGraph()
    refused(lambda: graph.capture_begin(), "a capture on the default stream")
    refused(graph.replay, "a replay without a capture")
    refused(lambda: graph_of(graph.capture_begin), "a capture within a capture")


def sync_debug_mode() -> None:
    x, far = near(4), torch.ones(4)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for work in (x.sum().item, x.nonzero, lambda: x.copy_(far), lambda: x[x > 0]):
            refused(work, "set_sync_debug_mode forbids")
        x.copy_(far, non_blocking=True)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def memory_that_is_gone() -> None:
    for make in (near, torch.ones(4).pin_memory):
        x, out = make(), near(4)
        graph, _ = graph_of(partial(out.copy_, x, non_blocking=True))
        view = x[1:]
        del x
        graph.replay()
        del view
        gc.collect()
        refused(graph.replay, "memory that nobody holds any more: aten::copy_")


def memory_that_a_capture_let_go() -> None:
    x, held = near(4), list[Any]()

    def work() -> torch.Tensor:
        y = x + 1
        held.append(y.numbers)  # type: ignore[attr-defined]
        return x * y

    graph, out = graph_of(work)
    graph.replay()
    assert out.tolist() == [2.0] * 4
    assert held[0].isnan().all()


def captures_do_nothing() -> None:
    x, out, host = near(4), near(4), torch.zeros(4).pin_memory()

    def work() -> tuple[torch.Tensor, torch.Tensor]:
        add[(1,)](x, x.add_(1), out, COUNT=4)
        host.copy_(out, non_blocking=True)
        return torch.empty_like(x), x.sum()[None].expand(3).contiguous()

    graph, (never, made) = graph_of(work)
    assert x.tolist() == out.tolist() == [1.0] * 4
    assert host.tolist() == [0.0] * 4
    assert made.isnan().all().item()
    for time in (1, 2):
        x.fill_(10.0 * time)  # a replay reads what is there now
        graph.replay()
        assert host.tolist() == [20.0 * time + 2] * 4
        assert made.tolist() == [40.0 * time + 4] * 3
        assert never.isnan().all().item()


def pinned_memory() -> None:
    x = torch.zeros(4, pin_memory=True)
    assert x.is_pinned()
    assert x[1:].is_pinned()
    assert not torch.zeros(4).is_pinned()
    assert near(4).to("cpu", non_blocking=True).is_pinned()
    del x
    runtime, far = pinned.Runtime(), torch.ones(1024)
    start, nbytes = far.data_ptr(), far.nbytes
    assert runtime.cudaHostUnregister(start) == pinned.NOT_YET
    assert runtime.cudaHostRegister(start, nbytes, 0) == 0
    assert runtime.cudaHostRegister(start + 8, 8, 0) == pinned.ALREADY
    assert far[5:].is_pinned()
    assert runtime.cudaHostUnregister(start) == 0
    assert not far.is_pinned()
    assert far.isnan().all()


def what_nobody_wrote() -> None:
    assert torch.empty(3, device="cuda").isnan().all().item()
    assert near(3).new_empty(2, dtype=torch.int32).tolist() == [77, 77]


def views() -> None:
    x = near(3, 4)
    x[1:, ::2].zero_()
    x.view(-1)[0] = 5.0
    assert x.tolist() == [[5, 1, 1, 1], [0, 1, 0, 1], [0, 1, 0, 1]]


ANYWHERE = {
    case.__name__.replace("_", " "): case
    for case in (
        mixed_devices, kernels_and_host_memory, captures_in_the_wrong_place, sync_debug_mode,
        memory_that_is_gone, memory_that_a_capture_let_go, captures_do_nothing, pinned_memory,
        what_nobody_wrote, views,
    )
}  # fmt: skip
