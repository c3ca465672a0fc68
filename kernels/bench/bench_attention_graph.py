"""The attention graph against FAISS's indexes at equal recall@100, one thread each, same queries.

A call is what one KV head does in a decode step: the queries of its group. Each index takes the
least effort that reaches the recall; where none does, its best is shown.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from contenders import RECALL, Contender, Data, flat, graph, inverted, small_world
from ood_keys import mahalanobis_gap, ood_keys
from report import Table, time_together

if TYPE_CHECKING:
    from report import Settings

CAPTURED = Path(__file__).parents[2] / "results" / ".data"


def measure(data: Data, settings: Settings) -> Table:
    """All contenders on one KV head."""
    import faiss

    faiss.omp_set_num_threads(torch.get_num_threads())
    tokens = len(data.keys_TD)
    forms = (
        [(32, True), (32, False)] if tokens > 65_536 else [(m, c) for m in (16, 32) for c in (1, 0)]
    )
    contenders = [graph(data), flat(data, faiss), inverted(data, faiss)]
    contenders += [small_world(data, faiss, links, bool(centred)) for links, centred in forms]
    faiss.omp_set_num_threads(1)
    for one in contenders:
        one.settle(data)

    def all_steps(one: Contender) -> None:
        for q_RD in data.test_NRD:
            one.find(q_RD, one.effort)

    seconds = time_together({one.name: partial(all_steps, one) for one in contenders}, settings)
    ours = seconds[contenders[0].name]
    gap = mahalanobis_gap(data.keys_TD, data.train_SD)
    head = (
        "index",
        "recall@100",
        "scanned",
        "us a step",
        "ours is faster",
        "build s",
        "MiB",
        "effort",
    )
    size = data.keys_TD.shape[1]
    title = f"attention_graph: {data.title}, {tokens:,} keys, D = {size}, Mahalanobis gap {gap:.1f}"
    steps = len(data.test_NRD)
    return Table(
        title, head, [row(one, seconds[one.name], ours, tokens, steps) for one in contenders]
    )


def row(one: Contender, seconds: float, ours: float, tokens: int, steps: int) -> tuple[str, ...]:
    """The cells of one contender."""
    reached = one.recall >= RECALL
    return (
        one.name,
        f"{one.recall:.3f}" + ("" if reached else " (stalls)"),
        f"{one.products / tokens:.2%}",
        f"{seconds / steps * 1e6:.0f}",
        ("" if reached else "> ") + f"{seconds / ours:.1f}x",
        f"{one.build_seconds:.1f}",
        f"{one.nbytes / 2**20:.0f}",
        str(one.effort or ""),
    )


def recorded() -> list[Data]:
    """What capture.py recorded, if it did: one table a file and KV head in the middle layer."""
    from safetensors.torch import load_file

    found = []
    for path in sorted(CAPTURED.glob("attention_*.safetensors")):
        parts = load_file(path)
        keys_TD, train_RSD, test_NRD = (parts[name].float() for name in ("keys", "train", "test"))
        found.append(Data(path.stem, keys_TD.contiguous(), train_RSD.flatten(0, 1), test_NRD))
    return found


def run(settings: Settings) -> list[Table]:
    """The generator, and what was captured."""
    tokens = 8192 if settings.quick else settings.tokens
    made = ood_keys(tokens)
    data = [
        Data(
            "generated",
            made.keys_TD,
            made.train_RSD.flatten(0, 1),
            made.test_RSD.transpose(0, 1).contiguous(),
        )
    ]
    return [measure(one, settings) for one in (data if settings.quick else [*data, *recorded()])]
