"""The attention graph against FAISS's indexes at equal recall@100, one thread each, same queries.

A call is what one KV head does in a decode step: the queries of its group. Each index takes the
least effort that reaches the recall; where none does, its best is shown.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch
from capture import recorded
from contenders import RECALL, Contender, Data, flat, graph, inverted, small_world
from ood_keys import mahalanobis_gap, ood_keys
from tables import Table, time_together

if TYPE_CHECKING:
    from collections.abc import Callable

    from tables import Settings

SMALL_WORLDS = ((16, True), (32, True), (64, True), (32, False))
"""Links a node, and whether the keys' mean is taken off, of the HNSWs that are tried."""


def measure(data: Data, settings: Settings) -> Table:
    """All contenders on one KV head."""
    import faiss

    threads = torch.get_num_threads()
    faiss.omp_set_num_threads(threads)
    tokens = len(data.keys_TD)
    contenders = [graph(data, "int8"), graph(data, "bfloat16")]
    contenders += [flat(data, faiss), inverted(data, faiss)]
    contenders += [small_world(data, faiss, *form) for form in SMALL_WORLDS]
    faiss.omp_set_num_threads(1)
    for one in contenders:
        one.settle(data)

    def all_steps(one: Contender) -> None:
        for q_RD in data.test_NRD:
            one.find(q_RD, one.effort)

    seconds = time_together({one.name: partial(all_steps, one) for one in contenders}, settings)
    faiss.omp_set_num_threads(threads)  # which counts for torch too
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


def generated(settings: Settings) -> list[Table]:
    """On the generator's keys."""
    made = ood_keys(settings.tokens)
    train_SD, test_NRD = made.train_RSD.flatten(0, 1), made.test_RSD.transpose(0, 1).contiguous()
    return [measure(Data("generated", made.keys_TD, train_SD, test_NRD), settings)]


def captured(tokens: int, layer: int, settings: Settings) -> list[Table]:
    """On the first KV head of a layer of the embedded model, which reads the prompt if need be."""
    parts = recorded("nano", tokens)[layer, 0]
    keys_TD, train_RSD, test_NRD = (parts[name].float() for name in ("keys", "train", "test"))
    title = f"the embedded model, layer {layer}"
    data = Data(title, keys_TD.contiguous(), train_RSD.flatten(0, 1), test_NRD.contiguous())
    return [measure(data, settings)]


def cases(settings: Settings) -> dict[str, Callable[[], list[Table]]]:
    """See run.py. At a quarter of the context, a middle and the last layer; at half of it, one:
    to record all of it took a quarter of an hour.
    """
    found: dict[str, Callable[[], list[Table]]]
    found = {"generated": partial(generated, settings)}
    quarter = max(settings.tokens // 4, 1024)
    for tokens, layer in ((quarter, 2), (quarter, 4), (max(settings.tokens // 2, 1024), 2)):
        found[f"captured {tokens} layer {layer}"] = partial(captured, tokens, layer, settings)
    return found
