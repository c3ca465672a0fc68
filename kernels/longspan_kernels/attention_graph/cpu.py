"""The native attention graph."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from longspan_kernels.attention_graph.options import GraphHits
from longspan_kernels.dispatch import native, thread_count

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from longspan_kernels.attention_graph.maps import Maps
    from longspan_kernels.attention_graph.options import GraphOptions, Storage


def nearest(
    queries_SW: Tensor, rows_NW: Tensor, k: int, *, threads: int | None, isa: str
) -> Tensor:
    """int32 [S, k]: the rows of largest product, best first; -1 where there are fewer than k."""
    id_SK = torch.empty(len(queries_SW), k, dtype=torch.int32)
    native.graph_nearest(queries_SW, rows_NW, id_SK, thread_count(threads), isa)
    return id_SK


def build(
    maps: Maps,
    rows_TW: Tensor,
    list_SK: Tensor,
    options: GraphOptions,
    *,
    threads: int | None,
    isa: str,
) -> Any:
    """A native graph over the codes rows_TW, from the lists of the sampled queries."""
    return native.graph_build(
        *maps,
        rows_TW,
        list_SK,
        storage=options.storage,
        degree=options.degree,
        pivots=options.pivots,
        candidates=options.candidates,
        neighbours=min(options.neighbours, len(rows_TW)),
        cluster_size=options.cluster_tokens,
        probes=options.probes,
        entries=max(1, min(options.entries, len(rows_TW) // 64)),
        slack=options.slack,
        threads=thread_count(threads),
        isa=isa,
    )


def search(
    graphs: Sequence[Any],
    q_HD: Tensor,
    k: int,
    *,
    beam: int,
    patience: int,
    seeds_HS: Tensor | None,
    keys_GTDs: Sequence[Tensor],
    rerank: int,
    threads: int | None,
    isa: str,
) -> GraphHits:
    """As the reference, one graph a query."""
    heads = len(q_HD)
    hits = GraphHits(
        torch.empty(heads, k, dtype=torch.int32),
        torch.empty(heads, dtype=torch.int64),
        torch.empty(heads, dtype=torch.int64),
    )
    native.graph_search(
        list(graphs),
        q_HD,
        seeds_HS,
        list(keys_GTDs),
        *hits,
        beam=beam,
        patience=patience,
        rerank=rerank,
        threads=thread_count(threads),
        isa=isa,
    )
    return hits


def insert(
    graph: Any, keys_ND: Tensor, bridges_BD: Tensor, options: GraphOptions, isa: str
) -> None:
    """Let keys into a native graph, in place."""
    native.graph_insert(
        graph,
        keys_ND,
        bridges_BD,
        beam=options.insert_beam,
        bridge_length=options.list_tokens,
        slack=options.slack,
        isa=isa,
    )


def restore(arrays: dict[str, Tensor], storage: Storage) -> Any:
    """A native graph from its arrays. Raises ValueError where they are not those of a graph."""
    return native.graph_restore(**arrays, storage=storage)
