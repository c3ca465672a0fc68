"""A whole retroinfer decode step of one layer, as the method runs it: search, estimation, exact
part, merge, and the Python between them.
"""

from __future__ import annotations

from itertools import cycle
from typing import TYPE_CHECKING

import torch
from bench_dense_decode import GROUPS, HEADS, WIDTH, fused, grouped_matmul
from inputs import topic_keys, topic_queries
from report import Table, reader, time_together

from longspan.methods.retroinfer import RetroInfer
from longspan.types import LayerGeometry
from longspan_kernels.dense_decode import dense_decode

if TYPE_CHECKING:
    from collections.abc import Callable

    from report import Settings

    from longspan.methods.base import LayerState

COLD_BYTES = 100e6
"""Layers take turns until their steps touch this much, so that none finds its bytes in a cache."""


def layer(tokens: int, seed: int, retrieval: float, estimation: float) -> LayerState:
    """A sealed state over synthetic keys, clustered in three rounds: only sizes matter here."""
    method = RetroInfer(retrieval_budget=retrieval, estimation_budget=estimation, kmeans_rounds=3)
    cpu = torch.device("cpu")
    state = method.layer(LayerGeometry(0, HEADS, GROUPS, WIDTH, WIDTH**-0.5, torch.bfloat16, cpu))
    keys_GTD, _ = topic_keys(GROUPS, tokens, WIDTH, seed)
    state.store.append(keys_GTD, keys_GTD)
    del keys_GTD
    state.seal()
    return state


def steps(states: list[LayerState], tokens: int) -> Callable[[], object]:
    """A call that takes one step of the next layer, with a new query."""
    centre_GCD = topic_keys(GROUPS, 48 * 64, WIDTH)[1]
    queries = cycle(topic_queries(centre_GCD, HEADS // GROUPS, 64))
    turns = cycle(states)
    return lambda: next(turns).decode(next(queries))


def measure(tokens: int, settings: Settings, fixed: bool) -> tuple[tuple[str, ...], float]:
    """A row of the table, and the seconds of a step."""
    share = 131_072 / tokens if fixed else 1.0
    budget = (min(1.0, 0.018 * share), min(0.9, 0.232 * share))
    states = [layer(tokens, 0, *budget)]
    step = steps(states, tokens)
    step()
    work = states[0].work()
    step_bytes = work.index_bytes + work.kv_bytes
    for seed in range(1, min(6, round(COLD_BYTES / step_bytes))):
        states.append(layer(tokens, seed, *budget))
    step = steps(states, tokens)
    (part, *_) = states[0].store.slices(4, tokens - 64)
    inputs = (torch.randn(HEADS, WIDTH).bfloat16(), part.keys_GTD, part.values_GTD)
    read, size = reader()
    calls = {
        "step": step,
        "read": read,
        "dense": lambda: dense_decode(*inputs, scale=WIDTH**-0.5),
        "fused": lambda: fused(*inputs),
        "matmul": lambda: grouped_matmul(*inputs),
    }
    rounds = max(3, settings.rounds * 131_072 // max(tokens, 131_072))
    seconds = time_together(calls, settings, rounds)
    steps_only = time_together({"step": step, "read": read}, settings, 5 * settings.rounds)
    needed = step_bytes / (size / steps_only["read"])
    torch_seconds = min(seconds["fused"], seconds["matmul"])
    row = (
        f"{tokens:,}",
        f"{steps_only['step'] * 1e3:.2f} ms",
        f"{step_bytes / 1e6:.1f} MB",
        f"{steps_only['step'] / needed:.2f}x",
        f"{seconds['dense'] * 1e3:.1f} ms",
        f"{torch_seconds * 1e3:.1f} ms",
        f"{torch_seconds / steps_only['step']:.0f}x",
    )
    return row, steps_only["step"]


def run(settings: Settings) -> list[Table]:
    """One table for budgets that are shares of the context, one for budgets of a fixed size."""
    lengths = [4096, 16384] if settings.quick else [32_768, 131_072, 1_048_576]
    head = (
        "tokens", "step", "bytes read", "of what its bytes need", "dense_decode", "faster torch",
        "faster than it",
    )  # fmt: skip
    tables = []
    for fixed, title in (
        (False, "retroinfer step, default budgets (1.8 % read, 23.2 % estimated)"),
        (True, "retroinfer step, budgets fixed at what they are for 131,072 tokens"),
    ):
        measured = [measure(tokens, settings, fixed) for tokens in lengths]
        growth = measured[-1][1] / measured[0][1]
        note = (
            f"From {lengths[0]:,} to {lengths[-1]:,} tokens ({lengths[-1] // lengths[0]}x) a step"
            f" grows {growth:.1f}x."
        )
        tables.append(Table(title, head, [row for row, _ in measured], (note,)))
    return tables
