"""A whole retroinfer decode step of one layer, as the method runs it: search, estimation, exact
part, merge, and the Python between them.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from itertools import cycle
from typing import TYPE_CHECKING, Any

import torch
from bench_dense_decode import GROUPS, HEADS, WIDTH, fused, grouped_matmul
from inputs import topic_keys, topic_queries
from tables import Table, reader, time_together

from longspan.methods.plan import Amount
from longspan.methods.retroinfer import RetroInfer
from longspan.types import LayerGeometry
from longspan_kernels.dense_decode import dense_decode

if TYPE_CHECKING:
    from collections.abc import Callable

    from tables import Settings

    from longspan.methods.retrieval import RetrievalState

COLD_BYTES = 100e6
"""Layers take turns until their steps touch this much, so that none finds its bytes in a cache."""
GROUPED_TOKENS = 131_072
"""The longest context at which a search over groups is timed beside one over all clusters."""
BURST = 8
"""Steps timed in a row: keys are cold, the program is not, as in a decode loop."""


def layer(tokens: int, seed: int, **options: Any) -> RetrievalState:
    """A sealed state over synthetic keys, clustered in three rounds: only sizes matter here."""
    cpu = torch.device("cpu")
    geometry = LayerGeometry(0, HEADS, GROUPS, WIDTH, WIDTH**-0.5, torch.bfloat16, cpu)
    state = RetroInfer(kmeans_rounds=3, retrieval_budget=0.018, tolerance=0.0, **options).layer(
        geometry
    )
    keys_GTD, _ = topic_keys(GROUPS, tokens, WIDTH, seed)
    state.store.append(keys_GTD, keys_GTD)
    del keys_GTD
    state.seal()
    return state


def set_budget(state: RetrievalState, share: float) -> None:
    """`share` times the budgets of RetroInfer's paper."""
    retrieve = Amount(share=min(0.5, 0.018 * share))
    estimate = Amount(share=min(0.5, 0.232 * share))
    state.plan = replace(state.plan, retrieve=retrieve, estimate=estimate)


def steps(states: list[RetrievalState]) -> Callable[[], object]:
    """A call that takes BURST steps, each of the next layer and with a new query."""
    centre_GCD = topic_keys(GROUPS, 48 * 64, WIDTH)[1]
    queries = cycle(topic_queries(centre_GCD, HEADS // GROUPS, 64))
    turns = cycle(states)
    return lambda: [next(turns).decode(next(queries)) for _ in range(BURST)]


def dense_seconds(state: RetrievalState, tokens: int, settings: Settings) -> tuple[float, float]:
    """Seconds of our dense attention over the same tokens, and of the faster of torch's."""
    (part, *_) = state.store.slices(4, tokens - 64)
    # whole tensors: torch's batched product takes a slow path over the views of a growing store
    keys_GTD, values_GTD = part.keys_GTD.contiguous(), part.values_GTD.contiguous()
    inputs = (torch.randn(HEADS, WIDTH).bfloat16(), keys_GTD, values_GTD)
    calls = {
        "dense": lambda: dense_decode(*inputs, scale=WIDTH**-0.5),
        "fused": lambda: fused(*inputs),
        "matmul": lambda: grouped_matmul(*inputs),
    }
    rounds = max(2, settings.rounds * 65_536 // max(tokens, 65_536))
    seconds = time_together(calls, settings, rounds)
    return seconds["dense"], min(seconds["fused"], seconds["matmul"])


def cells(
    states: list[RetrievalState], dense: float, by_torch: float, settings: Settings
) -> tuple[str, ...]:
    """What a row says of steps on these states."""
    step = steps(states)
    step()
    work = states[0].work()
    touched = work.index_bytes + work.kv_bytes
    read, size = reader()
    seconds = time_together({"burst": step, "read": read}, settings, 2 * settings.rounds)
    taken = seconds["burst"] / BURST
    needed = touched / (size / seconds["read"])
    return (
        f"{taken * 1e3:.2f} ms",
        f"{touched / 1e6:.1f} MB",
        f"{taken / needed:.2f}x",
        f"{dense * 1e3:.1f} ms",
        f"{by_torch * 1e3:.1f} ms",
        f"{by_torch / taken:.1f}x",
    )


def run(tokens: int, settings: Settings) -> list[Table]:
    """A row for budgets that are shares of the context, one for budgets of a fixed size."""
    states = [layer(tokens, 0)]
    dense, by_torch = dense_seconds(states[0], tokens, settings)
    steps(states)()
    work = states[0].work()
    touched = work.index_bytes + work.kv_bytes
    states += [layer(tokens, seed) for seed in range(1, min(4, round(COLD_BYTES / touched)))]
    head = (
        "budgets", "step", "bytes read", "of what its bytes need", "dense_decode", "faster torch",
        "faster than it",
    )  # fmt: skip
    table = Table(f"retroinfer step at {tokens:,} tokens", head)
    for name, share in (("default", 1.0), ("as for 131,072 tokens", 131_072 / tokens)):
        for state in states:
            set_budget(state, share)
        table.rows.append((name, *cells(states, dense, by_torch, settings)))
    if tokens <= GROUPED_TOKENS:
        grouped = [layer(tokens, seed, clusters_per_group=32) for seed in range(len(states))]
        name = "default, groups of 32 clusters searched first"
        table.rows.append((name, *cells(grouped, dense, by_torch, settings)))
    return [table]


def cases(settings: Settings) -> dict[str, Callable[[], list[Table]]]:
    """See run.py. The longest takes 10 GB of memory at the default context length."""
    tokens = settings.tokens
    return {f"{n:08d}": partial(run, n, settings) for n in (tokens // 4, tokens, 8 * tokens)}
