"""A layer of several prompts whose steps have a fixed shape, and the time that these take."""

from __future__ import annotations

import time
from statistics import mean, median
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from longspan.models.graphs import recorded
from longspan.models.pieces import Between

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from longspan.methods.base import LayerState, Method
    from longspan.types import LayerGeometry

FLUSHED = 256 << 20
"""Bytes that are written before each step: no GPU's cache holds so many."""


class Prompt(NamedTuple):
    """Keys [G, T, D] of a prompt, some of its queries [H, S, D], and those of decode steps."""

    geometry: LayerGeometry
    tokens: int
    keys_GTD: Tensor
    train_HSD: Tensor
    test_HND: Tensor

    def state(self, method: Method, row: int) -> LayerState:
        """A method's state, not sealed, over the row's own prompt: the keys rolled by another
        distance, and queries that come back, for methods that sum what all of them gave.
        """
        state: Any = method.layer(self.geometry)
        keys_GTD = self.keys_GTD.roll(997 * row, 1)
        asked_T = torch.arange(self.tokens, device=self.train_HSD.device) % self.train_HSD.shape[1]
        state.adopt(keys_GTD, keys_GTD.flip(-1), self.train_HSD[:, asked_T])
        return state  # type: ignore[no-any-return]


class Steps:
    """Prompts of one layer, decoded together: by a CUDA graph, or, on a CPU, the same calls one by
    one.
    """

    def __init__(self, method: Method, prompt: Prompt, rows: int, room: int) -> None:
        """`room`: steps that can be taken."""
        self.prompt, geometry = prompt, prompt.geometry
        self.states = [prompt.state(method, row) for row in range(rows)]
        begun = wait()
        for state in self.states:
            state.seal()
        self.build_s = (wait() - begun) / rows
        self.lengths = [prompt.tokens] * rows
        self.static = method.static_layer(self.states, [prompt.tokens + room + 1] * rows)
        self.static.prefetch()
        self.at_B = torch.tensor(self.lengths, device=geometry.device)
        shape = (rows, geometry.query_heads, geometry.head_size)
        self.q_BHD = torch.zeros(shape, dtype=geometry.dtype, device=geometry.device)
        self.new_BGD = prompt.keys_GTD[:, :rows].transpose(0, 1).contiguous()
        self.say(0)
        self.graphed = geometry.device.type == "cuda"
        self.run: Callable[[], object] = self.step
        if self.graphed:
            pieces, self.out_BHD = recorded(self.step, [geometry.device], Between())
            self.run = pieces.replay

    def step(self) -> Tensor:
        """What is captured; the token's value is its key."""
        return self.static.step(self.q_BHD, self.new_BGD, self.new_BGD, self.at_B).out

    def say(self, number: int) -> None:
        """Rows and steps look for different things, at where the rows are."""
        count = self.prompt.test_HND.shape[1]
        chosen = [(number + 7 * row) % count for row in range(len(self.lengths))]
        self.q_BHD.copy_(self.prompt.test_HND[:, chosen].transpose(0, 1))
        self.at_B.copy_(torch.tensor(self.lengths))

    def taken(self, warmup: int, steps: int) -> dict[str, Any]:
        """Median microseconds of a step, and of what its host does before it; what the last one
        read of each prompt, all together.
        """
        device_us, host_us = [], []
        for number in range(warmup + steps):
            begun = wait()
            self.static.update(self.lengths, range(len(self.lengths)))
            host_us.append(1e6 * (wait() - begun))
            self.say(number)
            device_us.append(1e6 * (timed_graph if self.graphed else timed)(self.run))
            self.lengths = [length + 1 for length in self.lengths]
        self.static.settle(self.lengths)
        works = [state.work() for state in self.states]
        return {
            "graph": self.graphed,
            "us a step": median(device_us[warmup:]),
            "us of the host": median(host_us[warmup:]),
            "exact tokens a head": mean(work.exact_tokens for work in works),
            "KV MB read": sum(work.kv_bytes for work in works) / 1e6,
            "index MB read": sum(work.index_bytes for work in works) / 1e6,
            "bus MB": sum(work.bus_bytes for work in works) / 1e6,
            "build s a prompt": self.build_s,
        }


def wait() -> float:
    """The time, when the GPU, if there is one, has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def timed(call: Callable[[], object]) -> float:
    """Seconds."""
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


def timed_graph(replay: Callable[[], object]) -> float:
    """Seconds of the device, which finds nothing in its cache. The host is ahead meanwhile."""
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    torch.empty(FLUSHED, dtype=torch.int8, device="cuda").zero_()
    first.record()
    replay()
    last.record()
    wait()
    return float(first.elapsed_time(last)) / 1e3
