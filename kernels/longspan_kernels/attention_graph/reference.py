"""The slow, obvious attention graph: exact lists, projection, occlusion, beam search.

Codes are float32 whatever `storage` says, near keys are found by brute force, and every node is its
own cluster: what the native graph approximates.
"""

from __future__ import annotations

import bisect
from typing import TYPE_CHECKING

import torch

from longspan_kernels.attention_graph.options import GraphHits

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from torch import Tensor

    from longspan_kernels.attention_graph.maps import Maps
    from longspan_kernels.attention_graph.options import GraphOptions

Arrays = dict[str, "Tensor"]
ENTRIES_KEPT = 48
"""The best so many entries are walked from; the others may still be come upon."""


def nearest(queries_SW: Tensor, rows_NW: Tensor, k: int) -> Tensor:
    """int32 [S, k]: the rows of largest product, best first; -1 where there are fewer than k."""
    id_SK = torch.full((len(queries_SW), k), -1, dtype=torch.int32)
    found = (queries_SW @ rows_NW.T).topk(min(k, len(rows_NW)), dim=1).indices
    id_SK[:, : found.shape[1]] = found.int()
    return id_SK


def choose(
    rows_TW: Tensor, node: int, candidates: Iterable[int], degree: int, pool: int, slack: float
) -> list[int]:
    """Edges of `node`: candidates by distance, less those that a kept edge is `slack` times nearer
    to than the node; of these the nearest fill up.
    """
    others = sorted(set(candidates) - {node})
    if not others:
        return []
    distance = (rows_TW[others] - rows_TW[node]).square().sum(-1)
    order = distance.argsort(stable=True)[:pool].tolist()
    kept: list[int] = []
    hidden: list[int] = []
    for place in order:
        other = others[place]
        if len(kept) == degree:
            return kept
        apart = (rows_TW[kept] - rows_TW[other]).square().sum(-1) if kept else distance[:0]
        (hidden if (slack * apart < distance[place]).any() else kept).append(other)
    return (kept + hidden)[:degree]


def far_apart(rows_TW: Tensor, count: int) -> list[int]:
    """Rows far from the origin and from each other, each the farthest from those before it, columns
    weighed by one over their spread.
    """
    spread_W = rows_TW.std(0, correction=0)
    scaled_TW = rows_TW * spread_W.clamp_min(1e-4 * float(spread_W.max())).clamp_min(1e-30).rsqrt()
    distance_T = scaled_TW.square().sum(-1)
    chosen: list[int] = []
    while len(chosen) < count:
        far = int(distance_T.argmax())
        chosen.append(far)
        distance_T = distance_T.minimum((scaled_TW - scaled_TW[far]).square().sum(-1))
        distance_T[chosen] = -1.0
    return chosen


def build(maps: Maps, rows_TW: Tensor, list_SK: Tensor, options: GraphOptions) -> Arrays:
    """The arrays of a graph over the codes rows_TW."""
    tokens = len(rows_TW)
    seen: list[list[int]] = [[] for _ in range(tokens)]
    for rank_S in list_SK.T.tolist():
        for number, key in enumerate(rank_S):
            if key >= 0:
                seen[key].append(number)
    apart_TT = torch.cdist(rows_TW, rows_TW)
    near_TN = apart_TT.topk(min(options.neighbours + 1, tokens), largest=False).indices.tolist()
    spare = min(2, options.degree // 4)
    limits = (options.degree - spare, options.candidates, options.slack)
    lists = list_SK.tolist()
    forward = []
    for node in range(tokens):
        together = {key for s in seen[node][: options.pivots] for key in lists[s] if key >= 0}
        forward.append(choose(rows_TW, node, together | set(near_TN[node]), *limits))
    both = [set(row) for row in forward]
    for node, row in enumerate(forward):
        for other in row:
            both[other].add(node)
    edges = [choose(rows_TW, node, found, *limits) for node, found in enumerate(both)]
    entries = far_apart(rows_TW, max(1, min(options.entries, tokens // 64)))
    connect(edges, entries, apart_TT, options.degree)
    return {
        "mean": maps.mean_D,
        "to_codes": maps.to_codes_DW,
        "to_queries": maps.to_queries_DW,
        "step": torch.ones(rows_TW.shape[1]),
        "codes": rows_TW,
        "half_norms": rows_TW.square().sum(-1) / 2,
        "edges": padded(edges, options.degree),
        "entries": torch.tensor(entries, dtype=torch.int32),
        "token_of": torch.arange(tokens, dtype=torch.int32),
    }


def padded(edges: Sequence[Sequence[int]], degree: int) -> Tensor:
    """int32 [T, degree], -1 where a node has fewer edges."""
    return torch.tensor(
        [[*row, *[-1] * (degree - len(row))] for row in edges], dtype=torch.int32
    ).reshape(len(edges), degree)


def reachable(edges: Sequence[Iterable[int]], entries: Iterable[int]) -> set[int]:
    """The nodes that the entries lead to, themselves included."""
    stack = list(entries)
    reached = set(stack)
    while stack:
        for other in edges[stack.pop()]:
            if other >= 0 and other not in reached:
                reached.add(other)
                stack.append(other)
    return reached


def connect(edges: list[list[int]], entries: list[int], apart_TT: Tensor, degree: int) -> None:
    """Give each node that no entry leads to an edge from the nearest reached one with room."""
    reached = reachable(edges, entries)
    for node in range(len(edges)):
        if node in reached:
            continue
        roomy = (o for o in apart_TT[node].argsort().tolist() if len(edges[o]) < degree)
        source = next((other for other in roomy if other in reached), None)
        if source is None:
            entries.append(node)
        else:
            edges[source].append(node)
        reached |= reachable(edges, [node])


def search(
    graphs: Sequence[Arrays],
    q_HD: Tensor,
    k: int,
    *,
    beam: int,
    seeds_HS: Tensor | None,
    keys_GTDs: Sequence[Tensor],
    rerank: int,
) -> GraphHits:
    """Beam search of one graph a query; see the package for the arguments."""
    ids_HK = torch.full((len(q_HD), k), -1, dtype=torch.int32)
    works = []
    for head, (graph, q_D) in enumerate(zip(graphs, q_HD, strict=True)):
        if k == len(graph["codes"]):
            ids_HK[head] = torch.arange(k)
            works.append((0, 0))
            continue
        score_T = graph["codes"] @ (q_D @ graph["to_queries"])
        token_of = graph["token_of"].tolist()
        seeds = [] if seeds_HS is None else seeds_HS[head].tolist()
        seeds = [token_of.index(token) for token in seeds if token >= 0]
        pool, distances, hops = walk(graph, score_T, max(beam, k), seeds)
        pool = [token_of[node] for node in pool]
        if keys_GTDs:
            row = head * len(keys_GTDs[0]) // len(q_HD)
            keys_TD = torch.cat([part[row] for part in keys_GTDs]).float()
            first = pool[: max(rerank, k)]
            exact = (keys_TD[first] @ q_D).tolist()
            first.sort(key=dict(zip(first, exact, strict=True)).__getitem__, reverse=True)
            pool, distances = first, distances + len(first)
        ids_HK[head, : len(pool[:k])] = torch.tensor(pool[:k], dtype=torch.int32)
        works.append((distances, hops))
    distances_H, hops_H = torch.tensor(works, dtype=torch.int64).reshape(-1, 2).unbind(1)
    return GraphHits(ids_HK, distances_H, hops_H)


def walk(
    graph: Arrays, score_T: Tensor, beam: int, seeds: Sequence[int]
) -> tuple[list[int], int, int]:
    """The best nodes met, best first, the nodes scored and the nodes expanded."""
    score = score_T.tolist()
    pool: list[tuple[float, int]] = []
    visited: set[int] = set()
    expanded: set[int] = set()

    def offer(nodes: Iterable[int]) -> None:
        for node in nodes:
            if node >= 0 and node not in visited:
                visited.add(node)
                bisect.insort(pool, (-score[node], -node))
                del pool[beam:]

    entries: list[int] = graph["entries"].tolist()
    offer(sorted(entries, key=lambda node: (-score[node], -node))[: min(ENTRIES_KEPT, beam)])
    offer(seeds)
    while open_nodes := [-node for _, node in pool if -node not in expanded]:
        expanded.add(open_nodes[0])
        offer(graph["edges"][open_nodes[0]].tolist())
    scored = len(visited) + max(0, len(entries) - min(ENTRIES_KEPT, beam))
    return [-node for _, node in pool], scored, len(expanded)
