"""The operation `attention_graph`: which keys a query should read; see README.md for the maths."""

from __future__ import annotations

from typing import TYPE_CHECKING

from longspan_kernels.attention_graph import cpu, reference
from longspan_kernels.attention_graph.graph import AttentionGraph, build, checked
from longspan_kernels.attention_graph.options import GraphHits, GraphOptions, Metric, Storage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

__all__ = ["AttentionGraph", "GraphHits", "GraphOptions", "Metric", "Storage", "build", "search"]


def search(
    graphs: Sequence[AttentionGraph],
    q_HD: Tensor,
    k: int,
    *,
    beam: int = 192,
    patience: int = 0,
    seeds_HS: Tensor | None = None,
    keys_GTDs: Sequence[Tensor] = (),
    rerank: int | None = None,
    threads: int | None = None,
) -> GraphHits:
    """The k keys of largest product with each query; one graph a query, all queries in parallel.

    beam: how many candidates the walk holds, at least k. patience: walk on for so many nodes that
    bring nothing into the first k, then stop; 0: until the beam is exhausted. seeds_HS: int32,
    further nodes to begin with (what the last step found), -1 where there are fewer. keys_GTDs: the
    keys themselves, in stretches; if given, the `rerank` best (default: a quarter more than k) are
    ordered by their exact products, query h using keys of head h * G // H. Threads do not change
    results.

    Raises ValueError where k is not 1 to the keys of every graph, on NaN or infinity, on shapes
    that do not fit.
    """
    q_HD = checked("q", q_HD, graphs[0].head_size if graphs else None)
    if len(graphs) != len(q_HD) or not graphs:
        raise ValueError(f"{len(graphs)} graphs for {len(q_HD)} queries; right is one a query")
    fewest = min(graph.tokens for graph in graphs)
    if not 1 <= k <= fewest:
        raise ValueError(f"k is {k}; it must be 1 to {fewest}, the keys of the smallest graph")
    if beam < 1 or patience < 0:
        raise ValueError(f"beam is {beam} and patience {patience}; right is at least 1 and 0")
    rerank = k + k // 4 + 8 if rerank is None else rerank
    isa = graphs[0].isa
    if any(graph.isa != isa for graph in graphs):
        raise ValueError("graphs are of several backends; right is one")
    handles = [graph.handle for graph in graphs]
    if isa is None:
        return reference.search(
            handles, q_HD, k, beam=beam, seeds_HS=seeds_HS, keys_GTDs=keys_GTDs, rerank=rerank
        )
    return cpu.search(
        handles,
        q_HD,
        k,
        beam=beam,
        patience=patience,
        seeds_HS=seeds_HS,
        keys_GTDs=keys_GTDs,
        rerank=rerank,
        threads=threads,
        isa=isa,
    )
